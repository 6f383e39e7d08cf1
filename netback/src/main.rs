// SPDX-License-Identifier: GPL-3.0-or-later
//! The `netback` command: exit codes and nothing else.

use std::process::ExitCode;

use clap::Parser;
use netback::cli::{Cli, Command};
use netback::commands;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => commands::run(&args),
        Command::Status(args) => commands::status(&args),
        Command::Demo(args) => commands::demo(&args),
        Command::Bench(args) => commands::bench(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netback: {error}");
            ExitCode::from(commands::exit_status(&*error))
        }
    }
}
