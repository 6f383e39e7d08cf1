// SPDX-License-Identifier: GPL-3.0-or-later
//! Where log events go, and how a guest is kept from causing too many of them.
//!
//! Started by systemd, events go to the journal with their fields (DOMID, VIF, ...) kept apart; otherwise to stderr,
//! one line each. Called once by `main`; [`RateLimited`] is used wherever a guest can cause an event.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogLevel;

/// Sends this process's events to the journal or to stderr, from `level` on or as the variable RUST_LOG says.
pub fn init(level: LogLevel) -> Result<(), LogError> {
    let filter = filter(level, std::env::var_os("RUST_LOG").as_deref())?;
    let (journal, complaint) = match stderr_is_journal() {
        true => match tracing_journald::layer() {
            Ok(layer) => (
                Some(
                    layer
                        .with_field_prefix(None)
                        .with_syslog_identifier("netback".into()),
                ),
                None,
            ),
            Err(error) => (None, Some(error)),
        },
        false => (None, None),
    };
    let lines = journal.is_none().then(|| {
        fmt::layer()
            .compact()
            .with_target(false)
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr)
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(journal)
        .with(lines)
        .try_init()
        .map_err(LogError::Set)?;
    if let Some(error) = complaint {
        tracing::warn!(%error, "cannot reach the journal, logging to stderr");
    }
    Ok(())
}

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// RUST_LOG is not a filter.
    #[error(
        "RUST_LOG={value:?} is not a log filter: {reason}; set it to error, warn, info, debug or trace, or unset it"
    )]
    Filter {
        /// The variable's value.
        value: String,
        /// What the parser says.
        reason: String,
    },
    /// Logging has been set up before.
    #[error("logging cannot be set up: {0}")]
    Set(#[source] tracing_subscriber::util::TryInitError),
}

fn filter(level: LogLevel, rust_log: Option<&OsStr>) -> Result<EnvFilter, LogError> {
    let Some(value) = rust_log.filter(|value| !value.is_empty()) else {
        return Ok(EnvFilter::new(level.as_str()));
    };
    let value = value.to_string_lossy();
    EnvFilter::builder()
        .parse(&value)
        .map_err(|error| LogError::Filter {
            value: value.into_owned(),
            reason: error.to_string(),
        })
}

/// Whether stderr is the stream that systemd connected to the journal (systemd.exec(5), JOURNAL_STREAM), and not one
/// that inherited the variable.
fn stderr_is_journal() -> bool {
    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stream(&stream, io::stderr().as_fd()))
}

fn is_stream(journal_stream: &str, fd: impl AsFd) -> bool {
    nix::sys::stat::fstat(fd)
        .is_ok_and(|stat| journal_stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// At most `max` characters of `text` (then `...`), escaped so that none of them can forge a line of a log or drive a
/// terminal. For strings from guests and from files.
#[must_use]
pub fn printable(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == max {
            out.push_str("...");
            break;
        }
        match c {
            '\'' | '"' => out.push(c),
            c => out.extend(c.escape_debug()),
        }
    }
    out
}

/// A count for a log event's field: the field is left out when it is 0.
#[must_use]
pub fn if_any(count: u64) -> Option<u64> {
    (count > 0).then_some(count)
}

/// A token bucket, in front of log events and of other work that a guest causes: lets a burst through, then one each
/// interval, and counts the rest.
/// What was suppressed is shown with [`if_any`].
///
/// ```
/// # use netback::logging::{RateLimited, if_any};
/// # use std::time::{Duration, Instant};
/// let mut limit = RateLimited::new(5, Duration::from_secs(10));
/// # let now = Instant::now();
/// if let Some(suppressed) = limit.allow(now) {
///     tracing::warn!(suppressed = if_any(suppressed), "a guest did something odd");
/// }
/// ```
#[derive(Debug, Clone)]
pub struct RateLimited {
    burst: u32,
    interval: Duration,
    tokens: u32,
    /// Since when the next token is in the making.
    since: Option<Instant>,
    suppressed: u64,
}

impl RateLimited {
    /// At most `burst` events at once, and one more for each `interval`.
    #[must_use]
    pub const fn new(burst: u32, interval: Duration) -> Self {
        Self {
            burst,
            interval,
            tokens: burst,
            since: None,
            suppressed: 0,
        }
    }

    /// Whether an event may be logged at `now`: if so, how many were suppressed since the last that was.
    pub fn allow(&mut self, now: Instant) -> Option<u64> {
        self.refill(now);
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                Some(std::mem::take(&mut self.suppressed))
            }
            None => {
                self.suppressed = self.suppressed.saturating_add(1);
                None
            }
        }
    }

    fn refill(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        let missing = self.burst.saturating_sub(self.tokens);
        let whole = passed
            .as_nanos()
            .checked_div(self.interval.as_nanos())
            .unwrap_or_else(|| u128::from(missing));
        match u32::try_from(whole) {
            Ok(whole) if whole < missing => {
                self.tokens += whole;
                self.since = Some(since + self.interval * whole);
            }
            _ => {
                self.tokens = self.burst;
                self.since = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_each_interval() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut limit = RateLimited::new(2, Duration::from_secs(1));
        let asked = [
            0, 0, 0, 500, 999, 1000, 1000, 2500, 2999, 3000, 99_000, 99_000, 99_000,
        ];
        let given = asked.map(|ms| limit.allow(at(ms)));
        let none = None;
        assert_eq!(
            given,
            [
                Some(0),
                Some(0),
                none,
                none,
                none,
                Some(3),
                none,
                Some(1),
                none,
                Some(1),
                Some(0),
                Some(0),
                none
            ]
        );
    }

    #[test]
    fn strange_settings_and_clocks_do_no_harm() {
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let mut never = RateLimited::new(0, Duration::from_secs(1));
        assert_eq!((never.allow(start), never.allow(later)), (None, None));
        let mut always = RateLimited::new(1, Duration::ZERO);
        assert!((0..100).all(|_| always.allow(start) == Some(0)));
        let mut back = RateLimited::new(1, Duration::from_secs(1));
        assert_eq!(
            (back.allow(later), back.allow(start), back.allow(later)),
            (Some(0), None, None)
        );
        let mut tiny = RateLimited::new(3, Duration::from_nanos(1));
        assert_eq!(tiny.allow(start), Some(0));
        assert_eq!(tiny.allow(start + Duration::from_secs(1 << 32)), Some(0));
    }

    #[test]
    fn nothing_printable_does_anything() {
        assert_eq!(printable("it's \"so\"", 20), "it's \"so\"");
        assert_eq!(
            printable("\u{1b}[2J\r\n\u{202e}\u{85}\u{9b}\\", 20),
            "\\u{1b}[2J\\r\\n\\u{202e}\\u{85}\\u{9b}\\\\"
        );
        assert_eq!(
            (printable("abc", 3), printable("abcd", 3), printable("", 0)),
            ("abc".into(), "abc...".into(), String::new())
        );
    }

    #[test]
    fn knows_the_journal_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let stat = nix::sys::stat::fstat(&file).unwrap();
        assert!(is_stream(
            &format!("{}:{}", stat.st_dev, stat.st_ino),
            &file
        ));
        for other in [
            format!("{}:{}", stat.st_dev, stat.st_ino + 1),
            String::new(),
            "x:y".into(),
        ] {
            assert!(!is_stream(&other, &file), "{other}");
        }
    }

    #[test]
    fn rust_log_goes_over_the_level() {
        let shown = |rust_log: Option<&str>| {
            filter(LogLevel::Warn, rust_log.map(OsStr::new)).map(|f| f.to_string())
        };
        assert_eq!(shown(None).unwrap(), "warn");
        assert_eq!(shown(Some("")).unwrap(), "warn");
        assert_eq!(shown(Some("netback=trace")).unwrap(), "netback=trace");
        let error = shown(Some("netback=loud")).unwrap_err().to_string();
        assert!(
            error.contains("RUST_LOG=\"netback=loud\"") && error.contains("debug"),
            "{error}"
        );
    }
}
