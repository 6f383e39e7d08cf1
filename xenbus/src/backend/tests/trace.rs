// SPDX-License-Identifier: GPL-3.0-or-later
//! The recorded life of a real vif, through the kernel's backend: fed with the same
//! inputs, the machine must write the same states.

use super::super::*;
use crate::state::XenbusState;

/// The vif's part of a recording of ours (see its first lines).
const TRACE: &str = include_str!("trace.txt");

/// One request or event: who, what, and the words between the brackets.
struct Line<'a> {
    incoming: bool,
    who: &'a str,
    what: &'a str,
    path: &'a str,
    value: &'a str,
}

fn lines() -> impl Iterator<Item = Line<'static>> {
    TRACE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (head, args) = line.split_once(" (").unwrap();
            let head: Vec<_> = head.split(' ').collect();
            let (path, value) = args
                .trim_end_matches(')')
                .split_once(' ')
                .unwrap_or((args, ""));
            Line {
                incoming: head[0] == "IN",
                who: head[1],
                what: head[3],
                path,
                value: value.trim(),
            }
        })
}

/// What our shell would do in the place of the kernel.
#[derive(Default)]
struct Shell {
    device: Device,
    own: Option<XenbusState>,
    frontend: String,
    hotplug: String,
    online: String,
    handle: Option<u32>,
    /// State writes and, as "features", advertisements.
    log: Vec<String>,
}

impl Shell {
    fn feed(&mut self, event: Event) {
        for action in self.device.handle(event) {
            match action {
                Action::Advertise => self.log.push("features".to_owned()),
                Action::SetState(state) if self.own != Some(*state) => {
                    self.own = Some(*state);
                    self.log.push(state.node().to_owned());
                }
                Action::CreateNetif => {
                    self.log.push("tap".to_owned());
                    self.feed(Event::NetifCreated);
                }
                Action::WatchFrontend | Action::ReadFrontend => self.look_at_frontend(),
                Action::ConnectQueues => self.feed(Event::QueuesUp),
                Action::DisconnectQueues => self.feed(Event::QueuesDown),
                Action::ReadHotplugStatus => self.look_at_hotplug(),
                Action::RunOffline => self.feed(Event::OfflineDone),
                Action::DestroyNetif => self.log.push("no tap".to_owned()),
                Action::ReportError => panic!("{:?}", self.device.error()),
                _ => {}
            }
        }
    }

    fn look_at_frontend(&mut self) {
        let state = match self.frontend.as_str() {
            "" => FrontendState::Absent,
            text => FrontendState::parse(text),
        };
        self.feed(Event::Frontend(state));
    }

    fn look_at_hotplug(&mut self) {
        let status = match self.hotplug.as_str() {
            "connected" => HotplugStatus::Connected,
            _ => HotplugStatus::Other,
        };
        self.feed(Event::Hotplug(status));
    }

    /// Somebody else than the backend changed the store.
    fn changed(&mut self, path: &str, value: &str) {
        let value = value.to_owned();
        match path {
            "/local/domain/1/device/vif/0/state" | "device/vif/0/state" => self.frontend = value,
            "/local/domain/0/backend/vif/1/0/hotplug-status" | "backend/vif/1/0/hotplug-status" => {
                self.hotplug = value
            }
            "/local/domain/0/backend/vif/1/0/online" => self.online = value,
            "/local/domain/0/backend/vif/1/0/handle" => self.handle = value.parse().ok(),
            "/local/domain/0/backend/vif/1/0/state" => self.own = value.parse().ok(),
            _ => {}
        }
    }

    fn removed(&mut self, path: &str) {
        match path {
            "/local/domain/1/device/vif/0" => self.frontend.clear(),
            "/local/domain/0/backend/vif/1/0" => self.own = None,
            _ => {}
        }
    }

    /// The kernel's backend is told, and so are we.
    fn told(&mut self, path: &str) {
        match path {
            "backend/vif/1/0/state" if self.device.phase() == Phase::New => {
                self.feed(Event::Probed(Ok(Probed {
                    own_state: self.own.unwrap(),
                    handle: self.handle,
                    online: self.online == "1",
                })));
            }
            "/local/domain/1/device/vif/0/state" => self.look_at_frontend(),
            "backend/vif/1/0/hotplug-status" => self.look_at_hotplug(),
            "backend/vif/1/0/online" => {
                let online = self.online == "1";
                self.feed(Event::OnlineChanged(online));
            }
            "backend/vif/1/0" if self.own.is_none() => self.feed(Event::BackendRemoved),
            _ => {}
        }
    }
}

#[test]
fn the_machine_writes_what_the_kernel_wrote() {
    let mut shell = Shell::default();
    for line in lines() {
        match (line.incoming, line.who, line.what) {
            (false, "dom0-kernel", "WATCH_EVENT") => shell.told(line.path),
            (true, "dom0-kernel", _) => {}
            (true, _, "WRITE") => shell.changed(line.path, line.value),
            (true, _, "RM") => shell.removed(line.path),
            _ => {}
        }
    }
    // The kernel's own record of the same, from the recording.
    let mut kernel: Vec<String> = Vec::new();
    for line in lines() {
        if (line.incoming, line.who, line.what) != (true, "dom0-kernel", "WRITE") {
            continue;
        }
        match line.path {
            "backend/vif/1/0/state" => kernel.push(line.value.to_owned()),
            _ if kernel.last().is_none_or(|last| last != "features") => {
                kernel.push("features".to_owned())
            }
            _ => {}
        }
    }
    assert_eq!(kernel, ["features", "2", "4", "5", "6"]);
    let ours: Vec<_> = shell
        .log
        .iter()
        .filter(|entry| !entry.contains("tap"))
        .collect();
    assert_eq!(ours, kernel.iter().collect::<Vec<_>>());
    assert_eq!(shell.log, ["tap", "features", "2", "4", "5", "6", "no tap"]);
    assert_eq!(shell.device.phase(), Phase::Removed);
}
