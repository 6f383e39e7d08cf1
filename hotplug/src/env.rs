// SPDX-License-Identifier: MIT OR Apache-2.0
//! How libxl calls a vif script: environment and arguments.
//!
//! As facts (libxl_linux.c, `get_hotplug_env`; man page xl-network-configuration): `script`, `XENBUS_TYPE`,
//! `XENBUS_PATH`, `XENBUS_BASE_PATH`, `netdev` (the backend's `gatewaydev`, and empty, not absent, when there is
//! none) and `vif`; arguments `online` or `offline`, then `type_if=vif`. (For the tap of an emulated card, which is
//! QEMU's and none of ours, there is `INTERFACE`, too.)
//! libxl hands its own environment down as well; a daemon's is no use to a script, so here a PATH is given instead.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What the script is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptCommand {
    /// Plug the interface in: bridge, routes, firewall.
    Online,
    /// Undo it.
    Offline,
}

impl ScriptCommand {
    /// The first argument of the script.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }

    /// All arguments of the script, as libxl gives them for a PV interface.
    #[must_use]
    pub const fn args(self) -> [&'static str; 2] {
        [self.as_str(), "type_if=vif"]
    }
}

/// What a vif script is told about its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptEnv {
    /// Absolute path of the script (the backend's `script` node).
    pub script: PathBuf,
    /// The guest's domain id.
    pub domid: u16,
    /// The device's handle (devid).
    pub handle: u32,
    /// The interface, by the name it was created under (`vif<domid>.<handle>`). The `offline` of a script that
    /// renamed it finds the new name in xenstore by itself.
    pub vif: String,
    /// The backend's `gatewaydev`.
    pub gatewaydev: Option<String>,
    /// Variables beyond libxl's, such as `XENSTORED_PATH` when the store is not at its usual place.
    pub extra: Vec<(String, String)>,
}

/// Where a script finds its programs; the scripts of Xen add their own `bin` directories to it.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl ScriptEnv {
    /// The environment of a device without a gateway device.
    #[must_use]
    pub fn new(
        script: impl Into<PathBuf>,
        domid: u16,
        handle: u32,
        vif: impl Into<String>,
    ) -> Self {
        Self {
            script: script.into(),
            domid,
            handle,
            vif: vif.into(),
            gatewaydev: None,
            extra: Vec::new(),
        }
    }

    /// All variables. The script gets these and no others.
    #[must_use]
    pub fn vars(&self) -> Vec<(String, String)> {
        let vars = [
            ("PATH", PATH.to_owned()),
            ("script", self.script.to_string_lossy().into_owned()),
            ("XENBUS_TYPE", "vif".to_owned()),
            (
                "XENBUS_PATH",
                format!("backend/vif/{}/{}", self.domid, self.handle),
            ),
            ("XENBUS_BASE_PATH", "backend".to_owned()),
            ("netdev", self.gatewaydev.clone().unwrap_or_default()),
            ("vif", self.vif.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        vars.into_iter().chain(self.extra.iter().cloned()).collect()
    }

    /// Whether the script could be run at all, so that a mistyped `script=` is reported as what it is.
    pub fn check(&self) -> Result<(), ScriptError> {
        let script = &self.script;
        if !script.is_absolute() {
            return Err(ScriptError::NotAbsolute(script.clone()));
        }
        let meta = std::fs::metadata(script).map_err(|source| ScriptError::Missing {
            script: script.clone(),
            source,
        })?;
        if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
            return Err(ScriptError::NotExecutable(script.clone()));
        }
        if self
            .vars()
            .iter()
            .any(|(name, value)| name.contains(['\0', '=']) || value.contains('\0'))
        {
            return Err(ScriptError::Nul(script.clone()));
        }
        Ok(())
    }
}

/// Why a vif script could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The path is relative.
    #[error("the vif script {0:?} is not an absolute path")]
    NotAbsolute(PathBuf),
    /// The file is not there or cannot be looked at.
    #[error("the vif script {script:?} cannot be found: {source}")]
    Missing {
        /// The script.
        script: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file is a directory or lacks the x bit.
    #[error("the vif script {0:?} is not an executable file")]
    NotExecutable(PathBuf),
    /// A value that cannot be passed in an environment.
    #[error(
        "an environment variable for the vif script {0:?} cannot be passed: it has a NUL byte or a = in its name"
    )]
    Nul(PathBuf),
    /// fork, exec or what surrounds them failed.
    #[error("the vif script {script:?} cannot be started: {source}")]
    Spawn {
        /// The script.
        script: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl ScriptError {
    pub(crate) fn spawn(script: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::Spawn {
            script: script.to_owned(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(env: &ScriptEnv) -> String {
        env.vars()
            .iter()
            .map(|(n, v)| format!("{n}={v}\n"))
            .collect()
    }

    #[test]
    fn gives_what_libxl_gives() {
        let mut env = ScriptEnv::new("/etc/xen/scripts/vif-bridge", 7, 1, "vif7.1");
        let plain = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
            script=/etc/xen/scripts/vif-bridge\nXENBUS_TYPE=vif\nXENBUS_PATH=backend/vif/7/1\n\
            XENBUS_BASE_PATH=backend\nnetdev=\nvif=vif7.1\n";
        assert_eq!(pairs(&env), plain);
        env.gatewaydev = Some("eth0".into());
        env.extra.push(("XENSTORED_PATH".into(), "/tmp/s".into()));
        let all = plain
            .replace("netdev=\n", "netdev=eth0\n")
            .replace("vif=vif7.1\n", "vif=vif7.1\nXENSTORED_PATH=/tmp/s\n");
        assert_eq!(pairs(&env), all);
        assert_eq!(ScriptCommand::Online.args(), ["online", "type_if=vif"]);
        assert_eq!(ScriptCommand::Offline.args(), ["offline", "type_if=vif"]);
    }

    #[test]
    fn checks_the_script_before_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let check = |script: &Path| ScriptEnv::new(script, 1, 0, "vif1.0").check();
        assert!(matches!(
            check(Path::new("vif-bridge")),
            Err(ScriptError::NotAbsolute(_))
        ));
        assert!(matches!(
            check(&dir.path().join("none")),
            Err(ScriptError::Missing { .. })
        ));
        assert!(matches!(
            check(dir.path()),
            Err(ScriptError::NotExecutable(_))
        ));
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        assert!(matches!(check(&plain), Err(ScriptError::NotExecutable(_))));
        assert!(check(Path::new("/bin/sh")).is_ok());
        let mut env = ScriptEnv::new("/bin/sh", 1, 0, "vif1.0");
        env.gatewaydev = Some("eth0\0".into());
        let error = env.check().unwrap_err();
        assert!(matches!(error, ScriptError::Nul(_)), "{error}");
    }
}
