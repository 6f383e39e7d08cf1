// SPDX-License-Identifier: GPL-3.0-or-later
//! The requests that a client and a transaction have in common.

use std::io;
use std::time::Duration;

use super::{Shared, refused};
use crate::perms::Perm;
use crate::session::Answer;
use crate::wire::{self, Kind, NO_TRANSACTION};

/// How often a long listing begins anew because the directory changed meanwhile.
const LISTING_TRIES: u32 = 20;
/// How many parts a listing may have: 4 MB of names, far beyond any real one.
const LISTING_PARTS: u32 = 1024;

impl Shared {
    pub(crate) fn directory(&self, tx_id: u32, path: &str) -> io::Result<Vec<Box<str>>> {
        match self.call(Kind::Directory, tx_id, &[path]) {
            Ok(payload) => names(&payload),
            Err(error) if error.kind() == io::ErrorKind::ArgumentListTooLong => {
                self.long_directory(tx_id, path)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn read(&self, tx_id: u32, path: &str) -> io::Result<Box<str>> {
        let payload = self.call(Kind::Read, tx_id, &[path])?;
        text(payload).map(String::into_boxed_str)
    }

    /// As [`Self::read`] outside of transactions, with another limit for the answer.
    pub(super) fn read_within(&self, path: &str, limit: Duration) -> io::Result<Box<str>> {
        let payload = self.call_within(limit, Kind::Read, NO_TRANSACTION, &[path])?;
        text(payload).map(String::into_boxed_str)
    }

    pub(crate) fn write(&self, tx_id: u32, path: &str, data: &str) -> io::Result<()> {
        self.write_many(tx_id, &[(path, data)])
    }

    pub(crate) fn rm(&self, tx_id: u32, path: &str) -> io::Result<()> {
        self.call(Kind::Rm, tx_id, &[path]).map(drop)
    }

    pub(crate) fn read_many<P: AsRef<str>>(
        &self,
        tx_id: u32,
        paths: &[P],
    ) -> Vec<io::Result<Box<str>>> {
        let values = self.call_many(Kind::Read, tx_id, paths);
        values
            .map(|value| text(value?).map(String::into_boxed_str))
            .collect()
    }

    pub(crate) fn rm_many<P: AsRef<str>>(&self, tx_id: u32, paths: &[P]) -> Vec<io::Result<()>> {
        let answers = self.call_many(Kind::Rm, tx_id, paths);
        answers.map(|answer| answer.map(drop)).collect()
    }

    pub(crate) fn write_many<P: AsRef<str>>(
        &self,
        tx_id: u32,
        nodes: &[(P, &str)],
    ) -> io::Result<()> {
        let payloads = nodes.iter().map(|(path, data)| node(path.as_ref(), data));
        let answers = self.exchange_many(Kind::Write, tx_id, payloads);
        all_done(Kind::Write, answers, nodes.iter().map(|(path, _)| path))
    }

    /// As [`Self::call`] with each of the paths.
    fn call_many<P: AsRef<str>>(
        &self,
        kind: Kind,
        tx_id: u32,
        paths: &[P],
    ) -> impl Iterator<Item = io::Result<Vec<u8>>> {
        let payloads = paths.iter().map(|path| strings(&[path.as_ref()]));
        let answers = self.exchange_many(kind, tx_id, payloads);
        answers
            .into_iter()
            .zip(paths)
            .map(move |(answer, path)| answer?.map_err(|code| refused(kind, path.as_ref(), code)))
    }

    pub(crate) fn mkdir(&self, tx_id: u32, path: &str) -> io::Result<()> {
        self.call(Kind::Mkdir, tx_id, &[path]).map(drop)
    }

    pub(crate) fn get_perms(&self, tx_id: u32, path: &str) -> io::Result<Vec<Perm>> {
        let payload = self.call(Kind::GetPerms, tx_id, &[path])?;
        names(&payload)?
            .iter()
            .map(|entry| entry.parse().map_err(invalid))
            .collect()
    }

    pub(crate) fn set_perms(&self, tx_id: u32, path: &str, perms: &[Perm]) -> io::Result<()> {
        self.set_perms_many(tx_id, &[(path, perms)])
    }

    pub(crate) fn mkdir_many<P: AsRef<str>>(&self, tx_id: u32, paths: &[P]) -> io::Result<()> {
        let mut answers = self.call_many(Kind::Mkdir, tx_id, paths);
        answers.try_for_each(|answer| answer.map(drop))
    }

    pub(crate) fn set_perms_many<P: AsRef<str>>(
        &self,
        tx_id: u32,
        nodes: &[(P, &[Perm])],
    ) -> io::Result<()> {
        let payloads = nodes
            .iter()
            .map(|(path, perms)| permissions(path.as_ref(), perms));
        let answers = self.exchange_many(Kind::SetPerms, tx_id, payloads);
        all_done(Kind::SetPerms, answers, nodes.iter().map(|(path, _)| path))
    }

    pub(crate) fn start_transaction(&self) -> io::Result<u32> {
        let payload = self.call(Kind::TransactionStart, wire::NO_TRANSACTION, &[""])?;
        let id = text(payload)?;
        id.trim_end_matches('\0')
            .parse()
            .ok()
            .filter(|id| *id != wire::NO_TRANSACTION)
            .ok_or_else(|| invalid(format!("{id:?} is not a transaction id")))
    }

    pub(crate) fn end_transaction(&self, tx_id: u32, commit: bool) -> io::Result<()> {
        let verdict = if commit { "T" } else { "F" };
        self.call(Kind::TransactionEnd, tx_id, &[verdict]).map(drop)
    }

    /// A listing of more than one message. xenstored says with each part which
    /// generation of the directory it is from; parts of two do not fit together.
    fn long_directory(&self, tx_id: u32, path: &str) -> io::Result<Vec<Box<str>>> {
        for _ in 0..LISTING_TRIES {
            if let Some(listing) = self.consistent_listing(tx_id, path)? {
                return names(&listing);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("{path:?} changes faster than it can be listed"),
        ))
    }

    /// All parts of one generation, or `None` if it changed on the way.
    fn consistent_listing(&self, tx_id: u32, path: &str) -> io::Result<Option<Vec<u8>>> {
        let mut listing = Vec::new();
        let mut generation: Option<Vec<u8>> = None;
        for _ in 0..LISTING_PARTS {
            let offset = listing.len().to_string();
            let reply = self.call(Kind::DirectoryPart, tx_id, &[path, &offset])?;
            let end = reply
                .iter()
                .position(|b| *b == 0)
                .ok_or_else(|| invalid("a part of a listing without a generation"))?;
            let (this, part) = reply.split_at(end);
            let part = part.get(1..).unwrap_or_default();
            if generation.get_or_insert_with(|| this.to_vec()) != this {
                return Ok(None);
            }
            // The last part ends with an empty name.
            if part == b"\0" || part.ends_with(b"\0\0") {
                listing.extend_from_slice(part.strip_suffix(b"\0").unwrap_or(part));
                return Ok(Some(listing));
            }
            if part.is_empty() {
                return Err(invalid("an empty part of a listing"));
            }
            listing.extend_from_slice(part);
        }
        Err(invalid("a listing without an end"))
    }
}

/// The first error among answers that have nothing else to say.
fn all_done<'p, P: AsRef<str> + 'p>(
    kind: Kind,
    answers: Vec<io::Result<Answer>>,
    paths: impl Iterator<Item = &'p P>,
) -> io::Result<()> {
    answers
        .into_iter()
        .zip(paths)
        .try_for_each(|(answer, path)| {
            answer?
                .map(drop)
                .map_err(|code| refused(kind, path.as_ref(), code))
        })
}

/// A path, a token or a value between NULs cannot contain one.
fn check_string(string: &str) -> io::Result<()> {
    if string.contains('\0') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{string:?} contains a NUL"),
        ));
    }
    Ok(())
}

/// A payload of strings, each with its NUL.
pub(super) fn strings(strings: &[&str]) -> io::Result<Vec<u8>> {
    let mut payload = Vec::new();
    for string in strings {
        check_string(string)?;
        payload.extend_from_slice(string.as_bytes());
        payload.push(0);
    }
    Ok(payload)
}

/// A payload of a path and who may do what with it.
fn permissions(path: &str, perms: &[Perm]) -> io::Result<Vec<u8>> {
    let entries: Vec<String> = perms.iter().map(ToString::to_string).collect();
    let mut words = vec![path];
    words.extend(entries.iter().map(String::as_str));
    strings(&words)
}

/// A payload of a path and what is to be written there.
fn node(path: &str, data: &str) -> io::Result<Vec<u8>> {
    check_string(path)?;
    Ok([path.as_bytes(), b"\0", data.as_bytes()].concat())
}

fn text(payload: Vec<u8>) -> io::Result<String> {
    String::from_utf8(payload).map_err(invalid)
}

fn names(payload: &[u8]) -> io::Result<Vec<Box<str>>> {
    wire::strings(payload)
        .map(|name| std::str::from_utf8(name).map(Box::from).map_err(invalid))
        .collect()
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
