// SPDX-License-Identifier: GPL-3.0-or-later
//! What a configuration file may say, and what an operator is told about one that says something else.

use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("netback.toml"))
}

fn error(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

#[test]
fn the_example_is_the_default() {
    let example = include_str!("../../netback.toml.example");
    assert_eq!(parse(example).unwrap(), Config::default());
    // So are its lines that are commented out, apart from the one that has no default value.
    let all = example.replace("\n#socket", "\nsocket");
    assert_eq!(
        parse(&all).unwrap().xenstore.socket,
        Some(PathBuf::from("/run/xenstored/socket"))
    );
}

#[test]
fn an_empty_file_is_the_default() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.hotplug.runner, Runner::Toolstack);
    assert_eq!(config.hotplug.timeout, Duration::from_secs(40));
    assert_eq!(config.tap.txqueuelen, 500);
    assert!(config.tap.join_datagrams);
    assert_eq!(config.limits.rate_to_guest, None);
    assert_eq!(config.limits.stall, Some(Duration::from_secs(10)));
    assert_eq!(
        parse("limits.stall-seconds = 0").unwrap().limits.stall,
        None
    );
    assert_eq!(config.log.level, LogLevel::Info);
    assert_eq!(
        config.control.socket,
        PathBuf::from("/run/netback/control.sock")
    );
    assert_eq!(config.xenstore.socket, None);
    assert!((1..=256).contains(&config.worker_count()));
    assert!((1..=4).contains(&config.queue_limit()));
}

#[test]
fn every_key_is_taken() {
    let config = parse(
        "workers = 3\nmax-queues = 32\nhotplug.runner = \"daemon\"\nhotplug.timeout-seconds = 5\ntap.txqueuelen = 65536\ntap.join-datagrams = false\n\
         limits.rate-to-guest = \"100Mb/s\"\nlimits.stall-seconds = 3600\n\
         log.level = \"trace\"\ncontrol.socket = \"/tmp/c\"\nxenstore.socket = \"/tmp/x\"\n",
    )
    .unwrap();
    let expected = Config {
        hotplug: HotplugConfig {
            runner: Runner::Daemon,
            timeout: Duration::from_secs(5),
        },
        workers: NonZeroU16::new(3),
        max_queues: NonZeroU16::new(32),
        tap: TapConfig {
            txqueuelen: 65536,
            join_datagrams: false,
        },
        limits: LimitsConfig {
            rate_to_guest: Some(Rate::from_config("100Mb/s").unwrap()),
            stall: Some(Duration::from_secs(3_600)),
        },
        log: LogConfig {
            level: LogLevel::Trace,
        },
        control: ControlConfig {
            socket: "/tmp/c".into(),
        },
        xenstore: XenstoreConfig {
            socket: Some("/tmp/x".into()),
        },
    };
    assert_eq!(config, expected);
    assert_eq!(config.worker_count(), 3);
    assert_eq!(config.queue_limit(), 32);
    assert_eq!(parse("workers = 0").unwrap().workers, None);
    assert_eq!(parse("max-queues = 0").unwrap().max_queues, None);
}

#[test]
fn a_bad_value_is_named_with_what_is_allowed() {
    let table = [
        (
            "workers = 257",
            "line 1: workers = 257 is not allowed: expected an integer from 0 (one per CPU) to 256",
        ),
        ("workers = -1", "workers = -1 is not allowed"),
        ("workers = \"4\"", "workers = \"4\" is not allowed"),
        ("workers = 1.5", "workers = 1.5 is not allowed"),
        (
            "max-queues = 33",
            "max-queues = 33 is not allowed: expected an integer from 0 (one per CPU, four at most) to 32",
        ),
        ("max-queues = -1", "max-queues = -1 is not allowed"),
        (
            "\n[hotplug]\nrunner = \"udev\"",
            "netback.toml, line 3: hotplug.runner = \"udev\" is not allowed: expected one of \"toolstack\", \"daemon\"",
        ),
        (
            "[hotplug]\nrunner = true",
            "line 2: hotplug.runner = true is not allowed",
        ),
        (
            "hotplug.timeout-seconds = 0",
            "hotplug.timeout-seconds = 0 is not allowed: expected an integer from 1 to 3600",
        ),
        (
            "hotplug.timeout-seconds = 3601",
            "hotplug.timeout-seconds = 3601 is not allowed",
        ),
        (
            "tap.txqueuelen = 0",
            "tap.txqueuelen = 0 is not allowed: expected an integer from 1 to 65536",
        ),
        (
            "tap.txqueuelen = 9223372036854775807",
            "tap.txqueuelen = 9223372036854775807 is not allowed",
        ),
        (
            "tap.join-datagrams = 1",
            "tap.join-datagrams = 1 is not allowed: expected true or false",
        ),
        (
            "limits.rate-to-guest = \"100\"",
            "limits.rate-to-guest = \"100\" is not allowed: expected a rate like \"100Mb/s\" (bits)",
        ),
        (
            "limits.rate-to-guest = \"0Mb/s\"",
            "above 0, or \"unlimited\"",
        ),
        (
            "limits.rate-to-guest = 100",
            "limits.rate-to-guest = 100 is not allowed",
        ),
        (
            "limits.stall-seconds = 3601",
            "limits.stall-seconds = 3601 is not allowed: expected an integer from 0 (never) to 3600",
        ),
        (
            "log.level = \"Info\"",
            "log.level = \"Info\" is not allowed: expected one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
        ),
        (
            "control.socket = \"here\"",
            "control.socket = \"here\" is not allowed: expected an absolute path",
        ),
        (
            "control.socket = \"/a\\u0000b\"",
            "is not allowed: expected an absolute path",
        ),
        (
            "xenstore.socket = 7",
            "xenstore.socket = 7 is not allowed: expected an absolute path",
        ),
    ];
    for (text, expected) in table {
        let error = error(text);
        assert!(error.contains(expected), "{text:?} gives: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let long = error(&format!("control.socket = \"/{}\"", "x".repeat(4000)));
    assert!(
        long.len() < 300 && long.contains("at most 107 bytes"),
        "{long}"
    );
}

#[test]
fn an_unknown_key_is_named_with_what_there_is() {
    let table = [
        (
            "worker = 1",
            "line 1: `worker = 1`: unknown field `worker`, expected one of `workers`, `max-queues`, `hotplug`",
        ),
        (
            "[hotplug]\nruner = \"daemon\"",
            "line 2: `runer = \"daemon\"`: unknown field `runer`, expected `runner` or `timeout-seconds`",
        ),
        (
            "[tap]\nmtu = 9000",
            "line 2: `mtu = 9000`: unknown field `mtu`, expected `txqueuelen` or `join-datagrams`",
        ),
        (
            "[frobnicate]\nx = 1",
            "line 1: `[frobnicate]`: unknown field `frobnicate`",
        ),
        ("workers = ", "line 1: `workers =`"),
        (
            "workers = 1\nworkers = 2",
            "line 2: `workers = 2`: duplicate key",
        ),
        ("workers 1", "line 1: `workers 1`"),
        (
            "hotplug = 3",
            "line 1: `hotplug = 3`: invalid type: integer `3`",
        ),
    ];
    for (text, expected) in table {
        let error = error(text);
        assert!(error.contains(expected), "{text:?} gives: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn only_the_default_file_may_be_absent() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none.toml");
    assert_eq!(
        Config::load_or_default(None, &none).unwrap(),
        Config::default()
    );
    let error = Config::load_or_default(Some(&none), &none).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }));
    assert!(
        error
            .to_string()
            .contains("none.toml cannot be read: No such file"),
        "{error}"
    );
    let some = dir.path().join("some.toml");
    std::fs::write(&some, "workers = 2").unwrap();
    for explicit in [None, Some(some.as_path())] {
        assert_eq!(
            Config::load_or_default(explicit, &some)
                .unwrap()
                .worker_count(),
            2
        );
    }
    std::fs::write(&some, [0xff, 0xfe]).unwrap();
    assert!(matches!(
        Config::load_or_default(None, &some),
        Err(ConfigError::Read { .. })
    ));
    assert!(matches!(
        Config::load_or_default(None, dir.path()),
        Err(ConfigError::Read { .. })
    ));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text: String) {
        let _ = parse(&text);
    }

    #[test]
    fn no_value_makes_it_panic(key in "(workers|max-queues|tap.txqueuelen|hotplug.runner|control.socket|limits.rate-to-guest)", value in "[-0-9a-z\"'\\[\\]{}=,.\n]{0,12}") {
        if let Err(error) = parse(&format!("{key} = {value}")) {
            prop_assert!(error.to_string().contains("line "));
        }
    }

    #[test]
    fn integers_are_taken_within_their_range_only(n: i64) {
        prop_assert_eq!(parse(&format!("workers = {n}")).is_ok(), (0..=256).contains(&n));
        prop_assert_eq!(parse(&format!("max-queues = {n}")).is_ok(), (0..=32).contains(&n));
        let near = n.rem_euclid(70_000);
        prop_assert_eq!(parse(&format!("tap.txqueuelen = {near}")).is_ok(), (1..=65536).contains(&near));
    }
}
