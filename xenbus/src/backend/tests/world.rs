// SPDX-License-Identifier: GPL-3.0-or-later
//! A small world of random peers around the machine: a frontend, a toolstack, a
//! hotplug script and a worker that do what they like, whenever they like. The shell
//! keeps the promises of [`super::super`]; after each step the invariants hold, and
//! from wherever the world has got to, a well-behaved frontend is served again and a
//! detach ends with nothing left.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::*;
use crate::state::XenbusState as S;

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
        let legal = matches!(
            (own, state),
            (S::Initialising, S::InitWait | S::Closing | S::Closed)
                | (S::InitWait, S::Connected | S::Reconfigured | S::Closing)
                | (S::Connected, S::Closing | S::Reconfigured)
                | (S::Reconfigured, S::Closing | S::Connected)
                | (S::Closing, S::Closed)
                | (S::Closed, S::InitWait | S::Closing)
        ) // A frontend that reconfigures waits for this; it reads 5 when it is done, or goes without.
            || (!self.online
                && (before.is_connected() || before == Phase::Closing)
                && (own, state) == (S::Closing, S::Reconfigured))
            || (!self.online && (own, state) == (S::Reconfigured, S::Closed));
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
        let compares =
            self.rings || !self.worker.is_empty() || self.device.phase() == Phase::Failed;
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
        let watching = !matches!(self.device.phase(), Phase::New | Phase::Dead);
        if told && watching {
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
        there && self.device.phase() != Phase::Dead
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

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let states = prop::sample::select(vec!["", "0", "1", "2", "3", "4", "4", "5", "6", "7", "x"]);
    let step = prop_oneof![
        8 => (states, prop::bool::weighted(0.8)).prop_map(|(state, told)| Step::Frontend(state, told)),
        1 => prop::bool::weighted(0.8).prop_map(Step::TakeOver),
        6 => prop::bool::weighted(0.8).prop_map(Step::Worker),
        3 => prop::bool::weighted(0.8).prop_map(Step::Hotplug),
        1 => Just(Step::Handle),
        1 => Just(Step::Fault),
        1 => Just(Step::Offline),
    ];
    let rare = prop_oneof![
        Just(Step::NetifLost),
        Just(Step::Detach),
        Just(Step::Remove)
    ];
    (
        prop::collection::vec(step, 0..40),
        prop::option::weighted(0.4, (0usize..40, rare)),
    )
        .prop_map(|(mut steps, rare)| {
            if let Some((at, rare)) = rare {
                steps.insert(at.min(steps.len()), rare);
            }
            steps
        })
}

fn worlds() -> impl Strategy<Value = World> {
    let own = prop::sample::select(vec![
        S::Initialising,
        S::Initialising,
        S::InitWait,
        S::Connected,
        S::Closing,
        S::Closed,
    ]);
    let frontend = prop::sample::select(vec!["1", "4", "5", "6"]);
    (own, prop::bool::weighted(0.8), frontend)
        .prop_map(|(own, handle, frontend)| World::new(own, handle, frontend))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn detaching_ends_with_nothing_left(mut world in worlds(), steps in steps()) {
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.detach();
        world.settle();
        // libxl's way, also for a guest that does not react: the frontend goes.
        world.frontend_writes("", true);
        world.settle();
        if world.device.phase() == Phase::Dead {
            world.step(&Step::Remove);
            world.settle();
        }
        prop_assert!(world.forgotten, "{:?}", world);
        prop_assert!(!world.netif && !world.rings);
        if let Some(own) = world.own {
            prop_assert_eq!(own, S::Closed);
        }
    }

    #[test]
    fn a_frontend_that_starts_anew_is_served_again(mut world in worlds(), steps in steps()) {
        for step in &steps {
            world.step(step);
        }
        world.settle();
        world.step(&Step::Handle);
        if world.can_serve() {
            for state in ["5", "6", "1", "4"] {
                world.frontend_writes(state, true);
                world.settle();
            }
            if !world.forgotten {
                world.step(&Step::Hotplug(true));
                prop_assert_eq!(world.own, Some(S::Connected), "{:?}", world);
                prop_assert!(world.device.phase().is_connected());
                prop_assert_eq!(world.device.error(), None);
            }
        }
    }

    #[test]
    fn a_frontend_that_takes_over_is_served(
        mut world in worlds(),
        steps in steps(),
        settled in any::<bool>(),
    ) {
        for step in &steps {
            world.step(step);
        }
        if settled {
            world.settle();
        }
        world.step(&Step::Handle);
        world.step(&Step::TakeOver(true));
        world.settle();
        if world.can_serve() {
            world.step(&Step::Hotplug(true));
            prop_assert_eq!(world.own, Some(S::Connected), "{:?}", world);
            prop_assert!(world.device.phase().is_connected());
            prop_assert_eq!((world.tried, world.device.error()), (Some(world.given), None));
        }
    }
}
