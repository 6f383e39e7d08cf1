// SPDX-License-Identifier: GPL-3.0-or-later
//! What must hold before the daemon touches anything; what does not is refused with a sentence that says what to do.
//!
//! `netback run` calls [`check`] once, first of all, and keeps what it returns: the lock that makes this the only
//! netback. The control thread asks again for [the kernel's driver](no_kernel_driver) with each device. All paths are
//! under a [`Host`], so that each refusal is tested on a directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The machine, by the root of its file system.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// This machine.
    #[must_use]
    pub fn system() -> Self {
        Self::at("/")
    }

    /// A machine whose /dev, /proc, /run and /sys are under `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// As long as this lives, no other netback starts.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

/// Checks that `host` is one on which the daemon can run, and locks it against a second one.
pub fn check(host: &Host) -> Result<InstanceLock, PreflightError> {
    under_xen(host)?;
    no_kernel_driver(host)?;
    for node in NODES {
        open_node(host, node)?;
    }
    net_admin(host)?;
    lock(host)
}

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// No hypervisor, or another one.
    #[error(
        "this machine does not run under Xen: start netback in dom0 or in a driver domain (`netback demo` works anywhere)"
    )]
    NotXen,
    /// The kernel's driver would claim the same devices.
    #[error(
        "the kernel's xen-netback driver is loaded and serves the same devices: shut down or detach what uses it, run \
         `modprobe -r xen-netback`, and keep it away with the lines `blacklist xen-netback` and `install xen-netback \
         /bin/true` in /etc/modprobe.d/netback.conf (Xen's start-up asks for it by name, which the first does not stop)"
    )]
    KernelDriver,
    /// The kernel's driver is not a module.
    #[error(
        "the kernel's xen-netback driver is built into this kernel and serves the same devices: boot with \
         `initcall_blacklist=netback_init` on the kernel's command line, or use a kernel that has it as a module"
    )]
    KernelDriverBuiltIn,
    /// A device node is missing.
    #[error("{node} is missing: run `modprobe {module}`")]
    NoNode {
        /// The device node.
        node: &'static str,
        /// The kernel module that makes it.
        module: &'static str,
    },
    /// A device node may not be used.
    #[error("no permission to open {node}: start netback as root")]
    NodePermission {
        /// The device node.
        node: &'static str,
    },
    /// A device node does not work.
    #[error("{node} cannot be opened: {source}")]
    Node {
        /// The device node.
        node: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// No right to configure the network.
    #[error(
        "the capability CAP_NET_ADMIN is missing, without which no tap can be made: start netback as root"
    )]
    NoNetAdmin,
    /// There is another one.
    #[error("another netback is running{}: stop it first", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Running {
        /// Its process id, if it has left one.
        pid: Option<u32>,
    },
    /// The lock cannot be had.
    #[error("the lock file {} cannot be used: {source}", file.display())]
    Lock {
        /// The file.
        file: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl PreflightError {
    /// Whether it stays so until somebody does something about it. A module may be loaded in a moment, and another
    /// daemon may be about to end.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        match self {
            Self::NotXen
            | Self::KernelDriver
            | Self::KernelDriverBuiltIn
            | Self::NodePermission { .. }
            | Self::NoNetAdmin => true,
            Self::NoNode { .. } | Self::Node { .. } | Self::Running { .. } | Self::Lock { .. } => {
                false
            }
        }
    }
}

struct Node {
    path: &'static str,
    module: &'static str,
}

const NODES: [Node; 3] = [
    Node {
        path: "/dev/xen/gntdev",
        module: "xen-gntdev",
    },
    Node {
        path: "/dev/xen/evtchn",
        module: "xen-evtchn",
    },
    Node {
        path: "/dev/net/tun",
        module: "tun",
    },
];

/// The bit of CAP_NET_ADMIN in the capability masks of /proc/self/status (<linux/capability.h>).
const CAP_NET_ADMIN: u32 = 12;

fn under_xen(host: &Host) -> Result<(), PreflightError> {
    let kind = std::fs::read_to_string(host.path("/sys/hypervisor/type")).unwrap_or_default();
    // /proc/xen is there on every kernel that runs under Xen, also on one built without /sys/hypervisor.
    if kind.trim() == "xen" || host.path("/proc/xen").is_dir() {
        Ok(())
    } else {
        Err(PreflightError::NotXen)
    }
}

/// Checks that the kernel's driver is not there. It may come later than the daemon: who left `xl` to load it
/// did not keep it away.
pub fn no_kernel_driver(host: &Host) -> Result<(), PreflightError> {
    if !host.path("/sys/bus/xen-backend/drivers/vif").exists() {
        return Ok(());
    }
    // Only a driver that was loaded has an initstate.
    match host.path("/sys/module/xen_netback/initstate").exists() {
        true => Err(PreflightError::KernelDriver),
        false => Err(PreflightError::KernelDriverBuiltIn),
    }
}

fn open_node(host: &Host, node: Node) -> Result<(), PreflightError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits())
        .open(host.path(node.path));
    let absent = || PreflightError::NoNode {
        node: node.path,
        module: node.module,
    };
    match opened {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(absent()),
        Err(e)
            if matches!(
                e.raw_os_error().map(nix::Error::from_raw),
                Some(nix::Error::ENXIO | nix::Error::ENODEV)
            ) =>
        {
            Err(absent())
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Err(PreflightError::NodePermission { node: node.path })
        }
        Err(source) => Err(PreflightError::Node {
            node: node.path,
            source,
        }),
    }
}

fn net_admin(host: &Host) -> Result<(), PreflightError> {
    // Where /proc does not tell, making the first tap will.
    let Ok(status) = std::fs::read_to_string(host.path("/proc/self/status")) else {
        return Ok(());
    };
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    match mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()) {
        Some(mask) if mask >> CAP_NET_ADMIN & 1 == 0 => Err(PreflightError::NoNetAdmin),
        _ => Ok(()),
    }
}

fn lock(host: &Host) -> Result<InstanceLock, PreflightError> {
    let path = host.path("/run/netback/lock");
    let failed = |source| PreflightError::Lock {
        file: path.clone(),
        source,
    };
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .map_err(failed)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // A pid that cannot be read is only missing from the message.
            let _unread = (&mut file).take(20).read_to_string(&mut text);
            return Err(PreflightError::Running {
                pid: text.trim().parse().ok(),
            });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    // The file stays when the daemon ends: were it removed, two could hold a lock on two files of that name.
    file.set_len(0)
        .and_then(|()| file.rewind())
        .map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(InstanceLock { _file: file })
}

#[cfg(test)]
mod tests;
