// SPDX-License-Identifier: GPL-3.0-or-later
//! The command line: what a user may type. It only parses; `main.rs` acts.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::LogLevel;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "netback",
    version,
    about = "Gives Xen guests their network: a user-space backend in the place of the kernel's xen-netback module",
    long_about = "Gives Xen guests their network, in the place of the kernel's xen-netback module.\n\n\
        Runs in dom0 or in a driver domain. xl, libvirt and the vif-* hotplug scripts are used as before; guests need \
        no change. `netback demo` shows it at work on any Linux machine, without Xen and without root.",
    arg_required_else_help = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the user asks for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the network devices of this host's guests, in the foreground, until SIGTERM or SIGINT
    Run(RunArgs),
    /// Show each guest's network device: its state, queues, features and counters
    Status(StatusArgs),
    /// Show the daemon at work with a simulated guest: no Xen, no root, nothing on this machine is changed
    Demo(DemoArgs),
    /// Measure the packet path, or many vifs on one daemon: no Xen, no root, nothing on this machine is changed
    Bench(BenchArgs),
}

/// `netback run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file, which must exist [default: /etc/netback/netback.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How much to log, over what the configuration says; the variable RUST_LOG goes over both
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub log_level: Option<LogLevel>,
    /// Read the configuration, say what is wrong with it, and end; a daemon that runs is not concerned
    #[arg(long)]
    pub check: bool,
}

/// `netback status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
    /// The daemon's control socket
    #[arg(long, value_name = "PATH", default_value = crate::config::DEFAULT_CONTROL_SOCKET)]
    pub socket: PathBuf,
}

/// `netback demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the guest running at the end, and print how to reach it; Ctrl-C ends it
    #[arg(long)]
    pub keep: bool,
    /// How long to send TCP in each direction
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=10))]
    pub seconds: u64,
}

/// `netback bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// What to measure
    #[arg(value_enum, default_value_t)]
    pub what: BenchWhat,
    /// Do a small part of the work: to see that it runs, not for figures
    #[arg(long)]
    pub quick: bool,
    /// Write the figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What `netback bench` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum BenchWhat {
    /// The packet path beside a bare loop over the same tap
    #[default]
    Path,
    /// A thousand vifs: how long they take to attach, what they cost, how they share
    Scale,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn takes_what_the_help_offers() {
        let Command::Run(run) = parse("netback run --config /a.toml --log-level debug")
            .unwrap()
            .command
        else {
            panic!("not run");
        };
        assert_eq!(run.config, Some(PathBuf::from("/a.toml")));
        assert_eq!(run.log_level, Some(LogLevel::Debug));
        assert!(!run.check);
        let Command::Run(run) = parse("netback run").unwrap().command else {
            panic!("not run")
        };
        assert_eq!((run.config, run.log_level), (None, None));
        let Command::Status(status) = parse("netback status --json").unwrap().command else {
            panic!("not status")
        };
        assert!(status.json);
        assert_eq!(status.socket, PathBuf::from("/run/netback/control.sock"));
        let Command::Demo(demo) = parse("netback demo --keep --seconds 1").unwrap().command else {
            panic!("not demo")
        };
        assert_eq!((demo.keep, demo.seconds), (true, 1));
        let Command::Bench(bench) = parse("netback bench --quick --json /a.json")
            .unwrap()
            .command
        else {
            panic!("not bench")
        };
        let json = Some(PathBuf::from("/a.json"));
        assert_eq!(
            (bench.what, bench.quick, bench.json),
            (BenchWhat::Path, true, json)
        );
        let Command::Bench(bench) = parse("netback bench scale").unwrap().command else {
            panic!("not bench")
        };
        assert_eq!((bench.what, bench.quick), (BenchWhat::Scale, false));
    }

    #[test]
    fn refuses_the_rest() {
        for line in [
            "netback",
            "netback serve",
            "netback run --log-level loud",
            "netback run extra",
            "netback demo --seconds 0",
            "netback demo --seconds 60",
            "netback bench everything",
            "netback status --socket",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn help_and_version_say_enough() {
        let help = Cli::command().render_long_help().to_string();
        // As wide as the terminal is.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in ["run", "status", "demo", "xen-netback", "without root"] {
            assert!(help.contains(word), "{word} is missing from:\n{help}");
        }
        let version = parse("netback --version").unwrap_err().to_string();
        assert_eq!(version, format!("netback {}\n", env!("CARGO_PKG_VERSION")));
    }
}
