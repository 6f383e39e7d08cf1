// SPDX-License-Identifier: GPL-3.0-or-later
//! Checks of single configuration values, and the errors that tell where in the file they stand.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::{Spanned, Value};

use super::ConfigError;
use crate::logging::printable;
use crate::vif::Rate;

/// Longest path of a unix socket: sun_path of sockaddr_un without its NUL.
const MAX_SOCKET_PATH: usize = 107;

/// The file under examination.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) file: &'a Path,
}

impl Source<'_> {
    pub(super) fn integer<T>(
        self,
        key: &'static str,
        value: &Spanned<Value>,
        range: RangeInclusive<i64>,
        allowed: &str,
    ) -> Result<T, ConfigError>
    where
        T: TryFrom<i64>,
    {
        let number = value.get_ref().as_integer().filter(|n| range.contains(n));
        number
            .and_then(|n| T::try_from(n).ok())
            .ok_or_else(|| self.refuse(key, value, allowed))
    }

    pub(super) fn choice<T: Copy>(
        self,
        key: &'static str,
        value: &Spanned<Value>,
        choices: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let given = value.get_ref().as_str();
        match choices.iter().find(|(name, _)| Some(*name) == given) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let names: Vec<_> = choices
                    .iter()
                    .map(|(name, _)| format!("{name:?}"))
                    .collect();
                Err(self.refuse(key, value, format!("one of {}", names.join(", "))))
            }
        }
    }

    pub(super) fn switch(
        self,
        key: &'static str,
        value: &Spanned<Value>,
    ) -> Result<bool, ConfigError> {
        let refused = || self.refuse(key, value, "true or false".to_owned());
        value.get_ref().as_bool().ok_or_else(refused)
    }

    pub(super) fn socket(
        self,
        key: &'static str,
        value: &Spanned<Value>,
    ) -> Result<PathBuf, ConfigError> {
        let fits = |path: &&str| {
            path.starts_with('/') && path.len() <= MAX_SOCKET_PATH && !path.contains('\0')
        };
        let path = value.get_ref().as_str().filter(fits);
        path.map(PathBuf::from).ok_or_else(|| {
            self.refuse(
                key,
                value,
                "an absolute path in quotes, at most 107 bytes long",
            )
        })
    }

    /// A rate; "unlimited" is none.
    pub(super) fn rate(
        self,
        key: &'static str,
        value: &Spanned<Value>,
    ) -> Result<Option<Rate>, ConfigError> {
        match value.get_ref().as_str() {
            Some("unlimited") => Ok(None),
            text => text
                .and_then(|text| Rate::from_config(text).ok())
                .map(Some)
                .ok_or_else(|| {
                    let form = Rate::CONFIG_FORM;
                    self.refuse(key, value, format!("{form}, above 0, or \"unlimited\""))
                }),
        }
    }

    /// The error of the parser, with the line it means.
    pub(super) fn syntax(self, error: &toml::de::Error) -> ConfigError {
        let (line, text) = self.line(error.span().map_or(0, |span| span.start));
        ConfigError::Syntax {
            file: self.file.to_owned(),
            line,
            text: printable(text.trim(), 120),
            message: printable(&error.message().replace('\n', ", "), 300),
        }
    }

    fn refuse(
        self,
        key: &'static str,
        value: &Spanned<Value>,
        allowed: impl Display,
    ) -> ConfigError {
        ConfigError::Value {
            file: self.file.to_owned(),
            line: self.line(value.span().start).0,
            key,
            value: printable(&value.get_ref().to_string().replace('\n', " "), 80),
            allowed: allowed.to_string(),
        }
    }

    /// The number (from 1) and the text of the line in which byte `offset` is.
    fn line(&self, offset: usize) -> (usize, &str) {
        let bytes = self.text.as_bytes();
        let before = bytes.get(..offset.min(bytes.len())).unwrap_or_default();
        let number = before.iter().filter(|b| **b == b'\n').count();
        (
            number + 1,
            self.text.lines().nth(number).unwrap_or_default(),
        )
    }
}
