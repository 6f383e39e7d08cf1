// SPDX-License-Identifier: GPL-3.0-or-later
//! A small world of random peers around the machine: a frontend, a toolstack, a
//! hotplug script and a worker that do what they like, whenever they like. The shell
//! keeps the promises of [`super::super`], and after each step the invariants hold. What
//! can be reached from wherever the world has got to: [`properties`].

use std::collections::VecDeque;

use super::super::*;
use crate::state::XenbusState as S;

mod properties;

/// What a worker has been told.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Command {
    Connect,
    Disconnect,
}

#[derive(Debug)]
struct World {
    device: Device,
    /// Our `state` node; `None` when the directory is gone.
    own: Option<S>,
    /// The toolstack wrote the present value, not we.
    own_by_toolstack: bool,
    online: bool,
    frontend: &'static str,
    /// Which rings the frontend has given, and which we have tried last.
    given: u32,
    tried: Option<u32>,
    hotplug: bool,
    handle: bool,
    netif: bool,
    rings: bool,
    advertised: bool,
    worker: VecDeque<Command>,
    offline_running: bool,
    online_runs: u32,
    offline_runs: u32,
    forgotten: bool,
    inbox: VecDeque<Event>,
}

impl World {
    fn new(own: S, handle: bool, frontend: &'static str) -> Self {
        let mut world = Self {
            device: Device::new(),
            own: Some(own),
            own_by_toolstack: false,
            online: true,
            frontend,
            given: 0,
            tried: None,
            hotplug: false,
            handle,
            netif: false,
            rings: false,
            advertised: own != S::Initialising,
            worker: VecDeque::new(),
            offline_running: false,
            online_runs: 0,
            offline_runs: 0,
            forgotten: false,
            inbox: VecDeque::new(),
        };
        let handle = handle.then_some(0);
        world.feed(Event::Probed(Ok(Probed {
            own_state: own,
            handle,
            online: true,
        })));
        world
    }

    fn feed(&mut self, event: Event) {
        self.inbox.push_back(event);
        while let Some(event) = self.inbox.pop_front() {
            if self.forgotten {
                self.inbox.clear();
                return;
            }
            let before = self.device.phase();
            for action in self.device.handle(event) {
                self.act(before, *action);
            }
            self.check();
        }
    }

    fn act(&mut self, before: Phase, action: Action) {
        assert!(!self.forgotten, "{action:?} after Forget");
        match action {
            Action::SetState(state) => self.write(before, state),
            Action::Advertise => self.advertised = true,
            Action::CreateNetif => {
                assert!(!self.netif && self.handle);
                self.netif = true;
                // Answered before anything else.
                self.inbox.push_front(Event::NetifCreated);
            }
            Action::DestroyNetif => {
                assert!(!self.rings && self.worker.is_empty());
                self.netif = false;
            }
            Action::WatchFrontend | Action::ReadFrontend => self.inbox.push_back(self.front()),
            Action::ReadHotplugStatus => self.inbox.push_back(self.status()),
            Action::ConnectQueues => {
                assert!(self.netif && !self.rings && self.worker.is_empty());
                self.tried = Some(self.given);
                self.worker.push_back(Command::Connect);
            }
            Action::DisconnectQueues => {
                assert!(self.rings || !self.worker.is_empty());
                self.worker.push_back(Command::Disconnect);
            }
            Action::Reconfigure => assert!(self.rings || !self.worker.is_empty()),
            Action::RunOnline => self.online_runs += 1,
            Action::RunOffline => {
                self.offline_runs += 1;
                self.offline_running = true;
            }
            Action::Forget => {
                assert!(!self.netif && !self.rings && self.worker.is_empty());
                self.forgotten = true;
            }
            Action::WatchHandle
            | Action::ClearHotplugStatus
            | Action::ReportError
            | Action::ClearError => {}
        }
    }

    fn write(&mut self, before: Phase, state: S) {
        let Some(own) = self.own else {
            return;
        };
        let asked = own == S::Closing && self.own_by_toolstack;
        if own == state || (asked && state == S::Connected) {
            return;
        }
        let legal = match (own, state) {
            // Only for a frontend that waits for it, or that may not have read it yet.
            (_, S::Reconfigured) => asked || self.frontend == "7",
            _ => matches!(
                (own, state),
                (S::Initialising, S::InitWait | S::Closing | S::Closed)
                    | (S::InitWait, S::Connected | S::Closing)
                    | (S::Connected, S::Closing)
                    | (S::Reconfigured, S::Closing | S::Connected)
                    | (S::Closing, S::Closed)
                    | (S::Closed, S::InitWait | S::Closing)
            ),
        };
        assert!(legal, "own state {own} -> {state} in {before}");
        if state == S::InitWait {
            assert!(
                self.advertised && (self.netif || !self.handle),
                "in {before}"
            );
        }
        if state == S::Connected {
            // Once connected, what becomes of the script's node does not matter.
            let hotplugged = self.hotplug || before == Phase::Reconfigured;
            assert!(self.netif && self.rings && hotplugged);
        }
        self.own = Some(state);
        self.own_by_toolstack = false;
    }

    fn check(&self) {
        let phase = self.device.phase();
        if phase.is_connected() {
            assert!(self.rings && self.netif && !self.forgotten);
        }
        if self.rings {
            let holding = matches!(
                phase,
                Phase::AwaitHotplug
                    | Phase::Connected
                    | Phase::Reconfigured
                    | Phase::Disconnecting(_)
            );
            assert!(holding, "rings are held in {phase}");
        }
        if matches!(phase, Phase::Removed) {
            assert!(!self.netif && !self.rings);
        }
        assert!(self.offline_runs <= 1 && self.online_runs <= 1);
    }

    fn front(&self) -> Event {
        Event::Frontend(match self.frontend {
            "" => FrontendState::Absent,
            text => FrontendState::parse(text),
        })
    }

    fn status(&self) -> Event {
        Event::Hotplug(if self.hotplug {
            HotplugStatus::Connected
        } else {
            HotplugStatus::Other
        })
    }

    /// What the watch on the frontend tells.
    fn seen(&self) -> Event {
        let phase = self.device.phase();
        let failed = matches!(phase, Phase::Failed | Phase::Answered(Unserved::Failed));
        let compares = self.rings || !self.worker.is_empty() || failed;
        match self.front() {
            Event::Frontend(FrontendState::Connected)
                if compares && self.tried != Some(self.given) =>
            {
                Event::Frontend(FrontendState::Anew)
            }
            event => event,
        }
    }

    fn frontend_writes(&mut self, state: &'static str, told: bool) {
        self.frontend = state;
        if told && self.device.phase() != Phase::New {
            self.feed(self.seen());
        }
    }

    fn worker_step(&mut self, ok: bool) {
        match self.worker.pop_front() {
            Some(Command::Connect) if ok => {
                self.rings = true;
                self.feed(Event::QueuesUp);
            }
            Some(Command::Connect) => self.feed(Event::QueuesFailed("no".to_owned())),
            Some(Command::Disconnect) => {
                self.rings = false;
                self.feed(Event::QueuesDown);
            }
            None => {}
        }
    }

    fn detach(&mut self) {
        self.online = false;
        if let Some(own) = self.own {
            if own != S::Closed {
                self.own = Some(S::Closing);
                self.own_by_toolstack = true;
            }
            self.feed(Event::OnlineChanged(false));
            if self.own == Some(S::Closing) {
                self.feed(Event::ToolstackClosing);
            }
        }
    }

    fn offline_ends(&mut self) {
        if std::mem::take(&mut self.offline_running) {
            self.feed(Event::OfflineDone);
        }
    }

    /// The device is wanted, and there is what it needs.
    fn can_serve(&self) -> bool {
        let there = self.online && !self.forgotten && self.own.is_some();
        let phase = self.device.phase();
        there && !matches!(phase, Phase::Dead | Phase::Answered(Unserved::Dead))
    }

    /// Lets everything that is under way finish.
    fn settle(&mut self) {
        for _ in 0..20 {
            self.worker_step(true);
            self.offline_ends();
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Frontend(state, told) => self.frontend_writes(state, *told),
            Step::TakeOver(told) => {
                self.given += 1;
                self.frontend_writes("4", *told);
            }
            Step::Worker(ok) => self.worker_step(*ok),
            Step::Hotplug(done) => {
                self.hotplug = *done;
                self.feed(self.status());
            }
            Step::Handle => {
                if !self.handle {
                    self.handle = true;
                    self.feed(Event::Handle(Ok(0)));
                }
            }
            Step::Fault => {
                if self.rings {
                    self.feed(Event::PeerFault("lies".to_owned()));
                }
            }
            Step::NetifLost => {
                if self.netif {
                    self.feed(Event::NetifFailed("lost".to_owned()));
                }
            }
            Step::Detach => self.detach(),
            Step::Remove => {
                self.own = None;
                self.feed(Event::BackendRemoved);
            }
            Step::Offline => self.offline_ends(),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The frontend writes a state, and we are told at once or only later.
    Frontend(&'static str, bool),
    /// Another driver says Connected, whatever the former one said.
    TakeOver(bool),
    Worker(bool),
    Hotplug(bool),
    Handle,
    Fault,
    NetifLost,
    Detach,
    Remove,
    Offline,
}
