// SPDX-License-Identifier: GPL-3.0-or-later
//! Every (phase, event, online), compared with the list `edges.txt`.
//!
//! The list is the specification: change it by hand together with the table. The test
//! prints the whole list as the table has it when the two differ.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::super::*;
use crate::state::XenbusState;

/// One of each event, with every distinction that the table could make.
fn events() -> Vec<(String, Event)> {
    let mut events = Vec::new();
    for own_state in XenbusState::ALL {
        for handle in [Some(0), None] {
            for online in [true, false] {
                let name = format!(
                    "Probed({}, {}, {})",
                    own_state.node(),
                    if handle.is_some() {
                        "handle"
                    } else {
                        "no handle"
                    },
                    if online { "online" } else { "offline" },
                );
                let probed = Probed {
                    own_state,
                    handle,
                    online,
                };
                events.push((name, Event::Probed(Ok(probed))));
            }
        }
    }
    let text = || "x".to_owned();
    let mut named = |name: &str, event| events.push((name.to_owned(), event));
    named("Probed(Err)", Event::Probed(Err(text())));
    named("Handle(Ok)", Event::Handle(Ok(0)));
    named("Handle(Err)", Event::Handle(Err(text())));
    named("NetifCreated", Event::NetifCreated);
    named("NetifFailed", Event::NetifFailed(text()));
    named("Frontend(absent)", Event::Frontend(FrontendState::Absent));
    named("Frontend(1)", Event::Frontend(FrontendState::Initialising));
    named("Frontend(3)", Event::Frontend(FrontendState::Initialised));
    named("Frontend(4)", Event::Frontend(FrontendState::Connected));
    named("Frontend(4, anew)", Event::Frontend(FrontendState::Anew));
    named("Frontend(5)", Event::Frontend(FrontendState::Closing));
    named("Frontend(6)", Event::Frontend(FrontendState::Closed));
    named("Frontend(7)", Event::Frontend(FrontendState::Reconfiguring));
    named(
        "Frontend(nonsense)",
        Event::Frontend(FrontendState::Nonsense(text())),
    );
    named(
        "Hotplug(connected)",
        Event::Hotplug(HotplugStatus::Connected),
    );
    named(
        "Hotplug(error)",
        Event::Hotplug(HotplugStatus::Error(text())),
    );
    named("Hotplug(other)", Event::Hotplug(HotplugStatus::Other));
    named("QueuesUp", Event::QueuesUp);
    named("QueuesFailed", Event::QueuesFailed(text()));
    named("QueuesDown", Event::QueuesDown);
    named("PeerFault", Event::PeerFault(text()));
    named("OnlineChanged(1)", Event::OnlineChanged(true));
    named("OnlineChanged(0)", Event::OnlineChanged(false));
    named("ToolstackClosing", Event::ToolstackClosing);
    named("BackendRemoved", Event::BackendRemoved);
    named("OfflineDone", Event::OfflineDone);
    events
}

/// The edge that `Device` takes, `online` having been told before.
fn edge(phase: Phase, event: &Event, online: bool) -> (Phase, &'static [Action]) {
    let mut device = Device {
        phase,
        online,
        error: None,
    };
    let actions = device.handle(event.clone());
    (device.phase(), actions)
}

fn render() -> String {
    let mut out = String::from(
        "# SPDX-License-Identifier: GPL-3.0-or-later\n\
         # Every edge of the backend's state machine, one block for each phase.\n\
         # event [online|offline] -> phase: actions. What is not listed in a block is\n\
         # ignored there: no action, same phase. The last line names those events.\n",
    );
    for phase in Phase::ALL {
        writeln!(out, "\n{phase:?}").unwrap();
        let mut ignored = Vec::new();
        for (name, event) in events() {
            let edges = [true, false].map(|online| edge(phase, &event, online));
            let lines = match edges {
                [a, b] if a == b => vec![("", a)],
                [a, b] => vec![(" online", a), (" offline", b)],
            };
            for (when, (next, actions)) in lines {
                if next == phase && actions.is_empty() {
                    ignored.push(format!("{name}{when}"));
                    continue;
                }
                let actions: Vec<_> = actions.iter().map(|a| format!("{a:?}")).collect();
                let actions = if actions.is_empty() {
                    "nothing".to_owned()
                } else {
                    actions.join(", ")
                };
                writeln!(out, "  {name}{when} -> {next:?}: {actions}").unwrap();
            }
        }
        if ignored
            .iter()
            .filter(|name| name.starts_with("Probed("))
            .count()
            == 37
        {
            ignored.retain(|name| !name.starts_with("Probed("));
            ignored.insert(0, "Probed(*)".to_owned());
        }
        writeln!(out, "  ignored: {}", ignored.join("; ")).unwrap();
    }
    out
}

#[test]
fn every_edge_is_as_listed() {
    let listed = include_str!("edges.txt");
    let have = render();
    if listed != have {
        let listed: BTreeSet<_> = listed.lines().collect();
        for line in have.lines().filter(|line| !listed.contains(line)) {
            eprintln!("not in edges.txt: {line}");
        }
        panic!("edges.txt and the table differ; the table gives:\n{have}");
    }
}

#[test]
fn the_list_has_every_phase_once() {
    let phases: BTreeSet<_> = Phase::ALL.into_iter().collect();
    assert_eq!(phases.len(), Phase::ALL.len());
    for phase in Phase::ALL {
        assert_eq!(phase.reason().is_none(), phase.is_connected());
        // A new variant fails to compile here until it is added to `ALL`.
        match phase {
            Phase::New
            | Phase::AwaitHandle(Waiting::InitWait | Waiting::Closing | Waiting::Closed)
            | Phase::Creating(Start::InitWait | Start::Adopted | Start::Closing | Start::Closed)
            | Phase::InitWait
            | Phase::Adopted
            | Phase::Connecting
            | Phase::AwaitHotplug
            | Phase::Connected
            | Phase::Reconfigured
            | Phase::Disconnecting(After::Closing | After::Failed | After::Dead | After::Removed)
            | Phase::Closing
            | Phase::Closed
            | Phase::Failed
            | Phase::Dead
            | Phase::Answered(Unserved::Closing | Unserved::Failed | Unserved::Dead)
            | Phase::Retiring(Exit::Closed | Exit::Removed)
            | Phase::Removed => {}
        }
    }
}

/// Properties that hold on every single edge, whatever the list says.
#[test]
fn no_edge_breaks_the_rules() {
    use Action::*;
    for phase in Phase::ALL {
        for (name, event) in events() {
            for online in [true, false] {
                let (next, actions) = edge(phase, &event, online);
                let at = format!("{phase:?} on {name}: {actions:?}");
                let position = |wanted: Action| actions.iter().position(|a| *a == wanted);
                if let Some(wait) = position(SetState(XenbusState::InitWait)) {
                    assert!(
                        position(Advertise) < Some(wait) && position(Advertise).is_some(),
                        "{at}"
                    );
                }
                if position(SetState(XenbusState::Connected)).is_some() {
                    assert!(
                        matches!(phase, Phase::AwaitHotplug | Phase::Reconfigured),
                        "{at}"
                    );
                }
                if position(SetState(XenbusState::Reconfigured)).is_some() {
                    let asked = event == Event::Frontend(FrontendState::Reconfiguring);
                    let hidden = event == Event::ToolstackClosing
                        && matches!(phase, Phase::Reconfigured | Phase::Answered(_));
                    assert!(asked || hidden, "8 is an answer: {at}");
                }
                if position(ReportError).is_some() {
                    let stays_up = matches!(event, Event::Hotplug(_));
                    assert!(
                        stays_up
                            || position(SetState(XenbusState::Closing)).is_some()
                            || matches!(next, Phase::Disconnecting(After::Failed | After::Dead))
                            // It comes when the frontend has read its 8.
                            || next == Phase::Answered(Unserved::Dead),
                        "a fatal error leads to Closing: {at}"
                    );
                }
                assert_eq!(
                    position(Forget).is_some(),
                    next == Phase::Removed && phase != next,
                    "{at}"
                );
                assert_eq!(
                    position(CreateNetif).is_some(),
                    matches!(next, Phase::Creating(_)) && phase != next,
                    "{at}"
                );
                assert_eq!(
                    position(RunOffline).is_some(),
                    matches!(next, Phase::Retiring(_)) && !matches!(phase, Phase::Retiring(_)),
                    "{at}"
                );
                assert!(
                    actions
                        .iter()
                        .filter(|a| matches!(a, DisconnectQueues))
                        .count()
                        <= 1,
                    "{at}"
                );
            }
        }
    }
}
