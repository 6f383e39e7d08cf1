// SPDX-License-Identifier: GPL-3.0-or-later
//! How many files the daemon may have open: a vif takes a few descriptors, and the usual soft limit of 1024 is there for
//! programs that use select(2), which this is not.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one, and returns it.
///
/// # Errors
///
/// The kernel's refusal, for which there is no known reason.
pub fn raise_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = raise_limit().unwrap();
        assert_eq!(
            getrlimit(Resource::RLIMIT_NOFILE).unwrap(),
            (hard, hard),
            "soft and hard"
        );
        assert_eq!(raise_limit().unwrap(), hard);
    }
}
