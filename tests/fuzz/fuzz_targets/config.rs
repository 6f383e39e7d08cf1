// SPDX-License-Identifier: GPL-3.0-or-later
//! Any text as a configuration: either every value is allowed, and the same configuration written
//! out anew is read as the same; or one line says which line of the file is wrong.
#![no_main]

use std::path::Path;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use netback::config::{Config, ConfigError, Runner};
use netback::vif::Rate;
use netback_fuzz::Many;

/// A line that may be one of the file's, or anything.
#[derive(Arbitrary, Debug)]
enum Line<'a> {
    Known {
        key: u8,
        short: bool,
        value: Value<'a>,
    },
    Section(u8),
    Any(&'a str),
}

#[derive(Arbitrary, Debug)]
enum Value<'a> {
    /// A number near one of the limits.
    Near {
        limit: u8,
        by: i8,
    },
    Number(i64),
    Switch(bool),
    /// One of the words that some key takes.
    Word(u8),
    Rate {
        number: u32,
        unit: u8,
    },
    Path {
        len: u8,
    },
    Text(&'a str),
    Any(&'a str),
}

const KEYS: [&str; 11] = [
    "workers",
    "max-queues",
    "hotplug.runner",
    "hotplug.timeout-seconds",
    "tap.txqueuelen",
    "tap.join-datagrams",
    "limits.rate-to-guest",
    "limits.stall-seconds",
    "log.level",
    "control.socket",
    "xenstore.socket",
];
const SECTIONS: [&str; 6] = ["hotplug", "tap", "limits", "log", "control", "xenstore"];
const WORDS: [&str; 6] = ["toolstack", "daemon", "unlimited", "info", "trace", "Info"];
const LIMITS: [i64; 6] = [0, 1, 32, 256, 3600, 65536];
const UNITS: [&str; 10] = ["b", "B", "Kb", "KB", "Mb", "MB", "Gb", "GB", "kb", ""];

/// The nth, around and around.
fn nth<T: Copy>(of: &[T], n: u8) -> T {
    of[usize::from(n) % of.len()]
}

impl Line<'_> {
    fn write(&self) -> String {
        match self {
            // Short, as it is behind its section's header.
            Self::Known { key, short, value } => {
                let key = nth(&KEYS, *key);
                let key = if *short {
                    key.rsplit('.').next().unwrap_or(key)
                } else {
                    key
                };
                format!("{key} = {}\n", value.write())
            }
            Self::Section(section) => format!("[{}]\n", nth(&SECTIONS, *section)),
            Self::Any(text) => format!("{text}\n"),
        }
    }
}

impl Value<'_> {
    fn write(&self) -> String {
        match self {
            Self::Near { limit, by } => (nth(&LIMITS, *limit) + i64::from(by % 2)).to_string(),
            Self::Number(number) => number.to_string(),
            Self::Switch(on) => on.to_string(),
            Self::Word(word) => toml_string(nth(&WORDS, *word)),
            Self::Rate { number, unit } => format!("\"{number}{}/s\"", nth(&UNITS, *unit)),
            Self::Path { len } => toml_string(&format!("/{}", "x".repeat((len % 120).into()))),
            Self::Text(text) => toml_string(text),
            Self::Any(text) => (*text).to_owned(),
        }
    }
}

/// The limits of netback.toml.example.
fn check(config: &Config) {
    let socket = |path: &Path| path.is_absolute() && path.as_os_str().len() <= 107;
    assert!((1..=256).contains(&config.worker_count()));
    assert!((1..=32).contains(&config.queue_limit()));
    assert!((1..=3600).contains(&config.hotplug.timeout.as_secs()));
    assert!((1..=65536).contains(&config.tap.txqueuelen));
    assert!(
        config
            .limits
            .stall
            .is_none_or(|stall| (1..=3600).contains(&stall.as_secs()))
    );
    assert!(
        config
            .limits
            .rate_to_guest
            .is_none_or(|rate| rate.bytes() > 0)
    );
    assert!(socket(&config.control.socket));
    assert!(config.xenstore.socket.as_deref().is_none_or(socket));
}

fn rate(rate: Rate) -> String {
    // Bits each second: as many bytes in eight.
    assert_eq!(rate.micros(), 8_000_000);
    let units = [
        (1, "b"),
        (1_000, "Kb"),
        (1_000_000, "Mb"),
        (1_000_000_000, "Gb"),
    ];
    let units = units
        .into_iter()
        .flat_map(|(bits, name)| [(bits, name.to_owned()), (8 * bits, name.replace('b', "B"))]);
    let mut fitting = units
        .filter(|(unit, _)| rate.bytes().is_multiple_of(*unit) && rate.bytes() / unit < 1 << 32);
    let (unit, name) = fitting.next().expect("that is how it was written");
    format!("{}{name}/s", rate.bytes() / unit)
}

fn write(config: &Config) -> String {
    let socket = |path: &Path| toml_string(path.to_str().expect("it was text"));
    let runner = match config.hotplug.runner {
        Runner::Toolstack => "toolstack",
        Runner::Daemon => "daemon",
    };
    let mut text = format!(
        "workers = {}\nmax-queues = {}\nlimits.stall-seconds = {}\nlimits.rate-to-guest = {}\n\
         hotplug = {{ runner = \"{runner}\", timeout-seconds = {} }}\n\
         tap.txqueuelen = {}\ntap.join-datagrams = {}\nlog.level = \"{}\"\n[control]\nsocket = {}\n",
        config.workers.map_or(0, Into::into),
        config.max_queues.map_or(0, Into::into),
        config.limits.stall.map_or(0, |stall| stall.as_secs()),
        toml_string(
            &config
                .limits
                .rate_to_guest
                .map_or_else(|| "unlimited".to_owned(), rate)
        ),
        config.hotplug.timeout.as_secs(),
        config.tap.txqueuelen,
        config.tap.join_datagrams,
        config.log.level,
        socket(&config.control.socket),
    );
    if let Some(path) = &config.xenstore.socket {
        text += &format!("[xenstore]\nsocket = {}\n", socket(path));
    }
    text
}

fn toml_string(text: &str) -> String {
    let chars = text.chars().map(|c| format!("\\U{:08X}", u32::from(c)));
    format!("\"{}\"", chars.collect::<String>())
}

fuzz_target!(|input: (u8, Many<Line>)| {
    // One bad line is enough to refuse a file, so there are few.
    let (count, Many(lines)) = input;
    let lines = lines.iter().take((count % 6).into());
    let text = &lines.map(Line::write).collect::<String>();
    let file = Path::new("netback.toml");
    let error = match Config::parse(text, file) {
        Ok(config) => {
            check(&config);
            let again = Config::parse(&write(&config), file);
            return assert_eq!(again.expect("all of it is allowed"), config);
        }
        Err(error) => error,
    };
    let (ConfigError::Syntax { line, .. } | ConfigError::Value { line, .. }) = &error else {
        panic!("no file has been read: {error}");
    };
    // The end of a file that ends with a line's end is in a line after the last.
    assert!((1..=text.matches('\n').count() + 1).contains(line));
    let message = error.to_string();
    assert!(message.starts_with(&format!("netback.toml, line {line}: ")));
    assert!(
        !message.contains(char::is_control) && message.len() < 4000,
        "{message:?}"
    );
});
