// SPDX-License-Identifier: GPL-3.0-or-later
//! The configuration file: TOML in, a [`Config`] in which every value is allowed out.
//!
//! Two stages: serde takes the file apart and refuses unknown keys; then each value is checked by itself, so that an
//! error names the line, the key, the value and what is allowed. Read once, at start.

mod value;

use std::num::{NonZeroU16, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;
use std::{fmt, io};

use serde::Deserialize;
use toml::{Spanned, Value};

use crate::vif::Rate;
use crate::vif::negotiate::MAX_QUEUES;
use value::Source;

/// The file read when none is named.
pub const DEFAULT_CONFIG: &str = "/etc/netback/netback.toml";
/// Where the control socket is unless the configuration says otherwise.
pub const DEFAULT_CONTROL_SOCKET: &str = "/run/netback/control.sock";

/// How the daemon is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Who runs the vif scripts, and how long they may take.
    pub hotplug: HotplugConfig,
    /// Number of worker threads; `None` is one per CPU. Use [`Config::worker_count`].
    pub workers: Option<NonZeroU16>,
    /// Most queue pairs that a vif may have; `None` is one per CPU, four at most. Use [`Config::queue_limit`].
    pub max_queues: Option<NonZeroU16>,
    /// Properties of new taps.
    pub tap: TapConfig,
    /// What a vif may take up.
    pub limits: LimitsConfig,
    /// What to log.
    pub log: LogConfig,
    /// The control socket.
    pub control: ControlConfig,
    /// The store.
    pub xenstore: XenstoreConfig,
}

/// `[hotplug]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotplugConfig {
    /// `runner`
    pub runner: Runner,
    /// `timeout-seconds`: how long a script may take that the daemon runs.
    pub timeout: Duration,
}

/// Who runs the vif scripts. Exactly one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Runner {
    /// libxl in dom0, `xl devd` in a driver domain.
    #[default]
    Toolstack,
    /// netback itself, for toolstacks that leave it to udev (xapi).
    Daemon,
}

/// `[tap]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapConfig {
    /// `txqueuelen`: frames that the host may queue towards a guest before it drops.
    pub txqueuelen: u32,
    /// `join-datagrams`: whether UDP datagrams that a guest sends in a row go to the host as one frame, where the kernel
    /// can do that.
    pub join_datagrams: bool,
}

/// `[limits]`: of each vif.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// `rate-to-guest`: how much a guest may receive; `None` is no limit.
    pub rate_to_guest: Option<Rate>,
    /// `stall-seconds`: how long a guest may post too few receive buffers; `None` is for ever.
    pub stall: Option<Duration>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `level`
    pub level: LogLevel,
}

/// How much to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogLevel {
    /// What went wrong for good.
    Error,
    /// And what went wrong but was borne.
    Warn,
    /// And each device's life.
    #[default]
    Info,
    /// And each step of it.
    Debug,
    /// And everything else; never per packet.
    Trace,
}

impl LogLevel {
    /// The level as the configuration file spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `[control]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// `socket`: path of the control socket.
    pub socket: PathBuf,
}

/// `[xenstore]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct XenstoreConfig {
    /// `socket`: path of xenstored's socket; `None` is wherever it usually is.
    pub socket: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hotplug: HotplugConfig {
                runner: Runner::default(),
                timeout: hotplug::script::DEFAULT_LIMIT,
            },
            workers: None,
            max_queues: None,
            tap: TapConfig {
                txqueuelen: 500,
                join_datagrams: true,
            },
            limits: LimitsConfig {
                rate_to_guest: None,
                stall: Some(Duration::from_secs(10)),
            },
            log: LogConfig {
                level: LogLevel::default(),
            },
            control: ControlConfig {
                socket: DEFAULT_CONTROL_SOCKET.into(),
            },
            xenstore: XenstoreConfig::default(),
        }
    }
}

impl Config {
    /// Reads the configuration: the file `explicit`, which must exist, or else [`DEFAULT_CONFIG`] if it exists.
    pub fn load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_or_default(explicit, Path::new(DEFAULT_CONFIG))
    }

    fn load_or_default(explicit: Option<&Path>, default: &Path) -> Result<Self, ConfigError> {
        let file = explicit.unwrap_or(default);
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, file),
            Err(e) if explicit.is_none() && e.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Read {
                file: file.to_owned(),
                source,
            }),
        }
    }

    /// What there is to say of a configuration that was loaded.
    #[must_use]
    pub fn verdict(explicit: Option<&Path>) -> String {
        match explicit.unwrap_or_else(|| Path::new(DEFAULT_CONFIG)) {
            file if file.exists() => format!("{}: no error", file.display()),
            file => format!("there is no {}: the defaults are used", file.display()),
        }
    }

    /// Parses the text of a configuration file; `file` is its name for errors.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let source = Source { text, file };
        let raw: Raw = toml::from_str(text).map_err(|e| source.syntax(&e))?;
        let mut config = Self::default();
        if let Some(value) = &raw.workers {
            let workers = source.integer(
                "workers",
                value,
                0..=256,
                "an integer from 0 (one per CPU) to 256",
            )?;
            config.workers = NonZeroU16::new(workers);
        }
        if let Some(value) = &raw.max_queues {
            let queues = source.integer(
                "max-queues",
                value,
                0..=MAX_QUEUES.into(),
                "an integer from 0 (one per CPU, four at most) to 32",
            )?;
            config.max_queues = NonZeroU16::new(queues);
        }
        if let Some(value) = &raw.hotplug.runner {
            let runners = [("toolstack", Runner::Toolstack), ("daemon", Runner::Daemon)];
            config.hotplug.runner = source.choice("hotplug.runner", value, &runners)?;
        }
        if let Some(value) = &raw.hotplug.timeout_seconds {
            let seconds: u16 = source.integer(
                "hotplug.timeout-seconds",
                value,
                1..=3600,
                "an integer from 1 to 3600",
            )?;
            config.hotplug.timeout = Duration::from_secs(seconds.into());
        }
        if let Some(value) = &raw.tap.txqueuelen {
            config.tap.txqueuelen = source.integer(
                "tap.txqueuelen",
                value,
                1..=65536,
                "an integer from 1 to 65536",
            )?;
        }
        if let Some(value) = &raw.tap.join_datagrams {
            config.tap.join_datagrams = source.switch("tap.join-datagrams", value)?;
        }
        if let Some(value) = &raw.limits.rate_to_guest {
            config.limits.rate_to_guest = source.rate("limits.rate-to-guest", value)?;
        }
        if let Some(value) = &raw.limits.stall_seconds {
            let seconds: u16 = source.integer(
                "limits.stall-seconds",
                value,
                0..=3600,
                "an integer from 0 (never) to 3600",
            )?;
            let stall = Duration::from_secs(seconds.into());
            config.limits.stall = (!stall.is_zero()).then_some(stall);
        }
        if let Some(value) = &raw.log.level {
            let levels = [
                LogLevel::Error,
                LogLevel::Warn,
                LogLevel::Info,
                LogLevel::Debug,
                LogLevel::Trace,
            ];
            config.log.level = source.choice(
                "log.level",
                value,
                &levels.map(|level| (level.as_str(), level)),
            )?;
        }
        if let Some(value) = &raw.control.socket {
            config.control.socket = source.socket("control.socket", value)?;
        }
        if let Some(value) = &raw.xenstore.socket {
            config.xenstore.socket = Some(source.socket("xenstore.socket", value)?);
        }
        Ok(config)
    }

    /// Number of worker threads to start: as configured, else one per CPU this process may use (at most 256).
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            Some(workers) => workers.get().into(),
            None => cpus().min(256),
        }
    }

    /// Most queue pairs to offer a frontend: as configured, else one per CPU this process may use (at most 4).
    #[must_use]
    pub fn queue_limit(&self) -> u16 {
        match self.max_queues {
            Some(queues) => queues.get(),
            None => u16::try_from(cpus().min(4)).unwrap_or(4),
        }
    }
}

/// Looked up once: that reads a dozen files of the control groups, and each vif asks.
fn cpus() -> usize {
    static CPUS: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(1, NonZeroUsize::get));
    *CPUS
}

/// The file as it is written: known keys, any values.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    workers: Option<Spanned<Value>>,
    max_queues: Option<Spanned<Value>>,
    hotplug: RawHotplug,
    tap: RawTap,
    limits: RawLimits,
    log: RawLog,
    control: RawControl,
    xenstore: RawXenstore,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct RawHotplug {
    runner: Option<Spanned<Value>>,
    timeout_seconds: Option<Spanned<Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct RawTap {
    txqueuelen: Option<Spanned<Value>>,
    join_datagrams: Option<Spanned<Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct RawLimits {
    rate_to_guest: Option<Spanned<Value>>,
    stall_seconds: Option<Spanned<Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLog {
    level: Option<Spanned<Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawControl {
    socket: Option<Spanned<Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawXenstore {
    socket: Option<Spanned<Value>>,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Not TOML, or a key that there is not.
    #[error("{}, line {line}: `{text}`: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// That line.
        text: String,
        /// What is wrong with it.
        message: String,
    },
    /// A value that is not allowed.
    #[error("{}, line {line}: {key} = {value} is not allowed: expected {allowed}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The key with its section.
        key: &'static str,
        /// The value as TOML.
        value: String,
        /// What would be allowed.
        allowed: String,
    },
}

#[cfg(test)]
mod tests;
