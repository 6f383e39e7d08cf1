// SPDX-License-Identifier: GPL-3.0-or-later
//! A private network for the demo and for tests: nothing that happens inside is seen by the host.
//!
//! With the privilege for it (root) the calling thread alone moves to a new network namespace, and every
//! thread it starts afterwards inherits that. Without privilege the whole process first enters a user
//! namespace of its own, in which it may do the same; the kernel allows that only while the process has one
//! thread, so `netback demo` calls [`enter`] before anything else.
//!
//! Where the machine forbids it, the error says which setting is the reason and how to run the demo anyway.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Which namespaces the caller now has for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A network namespace; the user (root) is the host's.
    Network,
    /// A user namespace, in which the caller is root, and a network namespace that belongs to it.
    UserAndNetwork,
}

/// Why there is no private network.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The kernel or its policy refuses namespaces to this user.
    #[error(
        "this machine does not let an ordinary user have a private network namespace ({call}: {errno})\n{why}"
    )]
    Forbidden {
        /// The step that was refused.
        call: &'static str,
        /// The kernel's answer.
        errno: Errno,
        /// The settings found, and what to run instead.
        why: String,
    },
    /// The caller has more than one thread already, so the process cannot change its user namespace.
    #[error(
        "a user namespace cannot be entered once a process has {threads} threads; \
         run as root, or enter the namespace before starting threads"
    )]
    Threads {
        /// Threads of this process.
        threads: usize,
    },
    /// The tap device node cannot be used.
    #[error("/dev/net/tun: {error}\n{advice}")]
    Tun {
        /// The kernel's answer to opening it.
        error: io::Error,
        /// What to do about it.
        advice: &'static str,
    },
    /// A file of /proc could not be written.
    #[error("cannot set up the user namespace: {path}: {error}")]
    Map {
        /// The file.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
}

/// Moves the caller into a private network namespace, by way of a user namespace where it has no privilege.
///
/// As root only the calling thread moves (and threads it starts later). Otherwise the process must still have
/// one thread.
///
/// # Errors
/// [`NamespaceError`], whose text says what to change or how to run the program otherwise.
pub fn enter() -> Result<Isolation, NamespaceError> {
    match enter_network() {
        Ok(()) => return Ok(Isolation::Network),
        Err(Errno::EPERM) => {}
        Err(errno) => return Err(forbidden("unshare(CLONE_NEWNET)", errno)),
    }
    let threads = thread_count();
    if threads > 1 {
        return Err(NamespaceError::Threads { threads });
    }
    // Read before: inside the new namespace both are the overflow id until the maps are written.
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| forbidden("unshare(CLONE_NEWUSER | CLONE_NEWNET)", errno))?;
    write_map("/proc/self/setgroups", "deny")?;
    write_map("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write_map("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    Ok(Isolation::UserAndNetwork)
}

/// Moves the calling thread alone into a new network namespace. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// The kernel's errno: EPERM without the capability.
pub fn enter_network() -> Result<(), Errno> {
    unshare(CloneFlags::CLONE_NEWNET)
}

/// Checks that taps can be made: /dev/net/tun exists and opens for reading and writing.
///
/// # Errors
/// [`NamespaceError::Tun`] with advice fitting the cause.
pub fn check_tun() -> Result<(), NamespaceError> {
    check_tun_at(Path::new("/dev/net/tun"))
}

fn check_tun_at(path: &Path) -> Result<(), NamespaceError> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_closed_again) => Ok(()),
        Err(error) => Err(NamespaceError::Tun {
            advice: tun_advice(&error),
            error,
        }),
    }
}

fn tun_advice(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            "The kernel's tun driver is not loaded: run `modprobe tun` as root."
        }
        Some(Errno::EACCES | Errno::EPERM) => {
            "It is not open to this user (most systems have it at mode 0666): run `chmod 0666 /dev/net/tun` as \
             root, or run the demo as root; it stays in a private network namespace there too."
        }
        _ => "The demo needs it to make a tap.",
    }
}

fn write_map(path: &str, text: &str) -> Result<(), NamespaceError> {
    fs::write(path, text).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        // Policies such as AppArmor's let unshare pass and refuse what makes it useful.
        Some(errno @ (Errno::EPERM | Errno::EACCES)) => forbidden("writing the id maps", errno),
        _ => NamespaceError::Map {
            path: PathBuf::from(path),
            error,
        },
    })
}

fn forbidden(call: &'static str, errno: Errno) -> NamespaceError {
    NamespaceError::Forbidden {
        call,
        errno,
        why: explain(Path::new("/proc/sys")),
    }
}

/// The settings that are known to forbid user namespaces: file below /proc/sys, the forbidding value, the cure.
const GATES: [(&str, &str, &str); 3] = [
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        "user/max_user_namespaces",
        "0",
        "sysctl -w user.max_user_namespaces=1000",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];

/// What the settings under `sysctls` say about the refusal, and what can be done, as lines of text.
fn explain(sysctls: &Path) -> String {
    let mut text = String::new();
    for (file, forbids, cure) in GATES {
        let value = fs::read_to_string(sysctls.join(file)).unwrap_or_default();
        if value.trim() == forbids {
            let name = file.replace('/', ".");
            // Writing to a String cannot fail.
            let _infallible = writeln!(
                text,
                "Reason: {name} is {forbids}. To allow it, as root: {cure}"
            );
        }
    }
    if text.is_empty() {
        text.push_str("No setting explains it; a container or a security policy may forbid it.\n");
    }
    text.push_str(
        "Or run it as root: `sudo netback demo`. It uses a private network namespace there too, so nothing on \
         this machine changes.",
    );
    text
}

/// Threads of this process, as /proc tells; 1 when it cannot be read.
fn thread_count() -> usize {
    fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forbidding_setting_is_named_with_its_cure() {
        for (file, forbids, cure) in GATES {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            fs::write(root.path().join(file), format!("{forbids}\n")).unwrap();
            let text = explain(root.path());
            assert!(text.contains(&file.replace('/', ".")), "{text}");
            assert!(text.contains(cure), "{text}");
            assert!(text.contains("sudo netback demo"), "{text}");
        }
    }

    #[test]
    fn without_a_known_reason_it_still_says_how_to_run() {
        let root = tempfile::tempdir().unwrap();
        let text = explain(root.path());
        assert!(text.contains("No setting explains it"), "{text}");
        assert!(text.contains("sudo netback demo"), "{text}");
    }

    #[test]
    fn tun_advice_fits_the_cause() {
        let missing = check_tun_at(Path::new("/nonexistent/tun"))
            .unwrap_err()
            .to_string();
        assert!(missing.contains("modprobe tun"), "{missing}");
        let denied = tun_advice(&io::Error::from(Errno::EACCES));
        assert!(denied.contains("chmod"), "{denied}");
    }

    #[test]
    fn a_thread_in_its_own_namespace_sees_no_other_interfaces() {
        // The other threads of the test process stay where they are: the namespace is per thread.
        let seen = std::thread::spawn(|| {
            enter_network()
                .expect("this test needs CAP_SYS_ADMIN (run it as root or under `unshare -Urn`)");
            let own = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            own.lines()
                .skip(2)
                .map(|line| line.split(':').next().unwrap().trim().to_owned())
                .collect::<Vec<_>>()
        })
        .join()
        .unwrap();
        assert_eq!(seen, ["lo"]);
    }
}
