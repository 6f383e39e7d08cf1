// SPDX-License-Identifier: GPL-3.0-or-later
//! Scripts that the daemon runs itself (`hotplug.runner = "daemon"`).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hotplug::{Tap, TapOptions};
use netback::config::{Config, Runner};
use netback::control::client;
use netback::demo::toolstack::VifSpec;
use netback_tests::raw::linux;
use netback_tests::world::{host_ip, until};
use netback_tests::{TestGuest, World, host};
use xenbus::Xs;

/// A script in the machine's directory, which notes how it was called in `<script>.log`.
struct Script {
    path: PathBuf,
}

impl Script {
    fn new(dir: &Path, name: &str, body: &str) -> Self {
        let path = dir.join(name);
        // The log is written by moving: whoever sees a line sees all of it.
        let text = format!(
            "#!/bin/sh\n{{ echo \"args $*\"; env | sort; grep -o 'vif[0-9.]*' /proc/self/net/dev; echo end; }} >> \"$0.log\"\n{body}\n"
        );
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { path }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path.with_added_extension("log")).unwrap_or_default()
    }

    fn runs(&self, command: &str) -> usize {
        self.log().matches(&format!("args {command} ")).count()
    }

    fn wait_ended(&self, runs: usize) {
        until("the script has run", || {
            self.log().matches("\nend\n").count() == runs
        });
    }
}

fn daemon_runs_scripts(config: &mut Config) {
    config.hotplug.runner = Runner::Daemon;
}

/// A guest whose vif a script has plugged in that the daemon has run.
fn plugged() -> (World, Script, TestGuest) {
    let world = World::with(daemon_runs_scripts);
    let script = Script::new(world.machine.dir(), "vif-test", "exit 0");
    let vif = with_script(&world, 1, &script.path);
    script.wait_ended(1);
    world.plug(&vif);
    let guest = world.boot_connected(vif, linux());
    (world, script, guest)
}

fn with_script(world: &World, dom: u16, path: &Path) -> VifSpec {
    let path = path.to_str().unwrap().to_owned();
    world.create_as(dom, |vif| vif.script = Some(path))
}

#[test]
fn the_daemon_runs_the_script_once_in_and_once_out() {
    let world = World::with(daemon_runs_scripts);
    let script = Script::new(world.machine.dir(), "vif-test", "exit 0");
    let vif = with_script(&world, 1, &script.path);
    script.wait_ended(1);
    let log = script.log();
    for line in [
        "args online type_if=vif",
        "XENBUS_TYPE=vif",
        "XENBUS_PATH=backend/vif/1/0",
        "XENBUS_BASE_PATH=backend",
        "vif=vif1.0",
        "netdev=",
        &format!("script={}", script.path.display()),
        // The script sees the tap: it exists before, and in the same namespace.
        "vif1.0",
    ] {
        assert!(
            log.lines().any(|found| found == line),
            "{line:?} is not in:\n{log}"
        );
    }
    // This script has no xenstore-write, so its part is done here.
    world.plug(&vif);
    let guest = world.boot_connected(vif.clone(), linux());
    guest.exercise();
    guest.reload();
    assert_eq!(
        (script.runs("online"), script.runs("offline")),
        (1, 0),
        "a reload runs no script"
    );
    world.remove(guest);
    script.wait_ended(2);
    assert_eq!((script.runs("online"), script.runs("offline")), (1, 1));
    world.finish_empty();
}

/// Each script has its own time, whatever the one before it has left of it.
#[test]
fn an_offline_that_never_ends_is_killed_too() {
    let world = World::with(|config| {
        daemon_runs_scripts(config);
        config.hotplug.timeout = Duration::from_secs(1);
    });
    let hangs = "[ \"$1\" = online ] && exit 0\nexec sleep 1000";
    let script = Script::new(world.machine.dir(), "vif-hung", hangs);
    let vif = with_script(&world, 1, &script.path);
    script.wait_ended(1);
    world.plug(&vif);
    let guest = world.boot_connected(vif, linux());
    world.remove(guest);
    world.finish_empty();
}

/// The node says what the tap is to be called, and it has been called so.
#[test]
fn a_handle_that_is_written_late_changes_nothing() {
    let world = World::with(daemon_runs_scripts);
    let script = Script::new(world.machine.dir(), "vif-test", "exit 0");
    let vif = with_script(&world, 1, &script.path);
    script.wait_ended(1);
    world.plug(&vif);
    let node = format!("{}/handle", vif.backend_dir());
    world.toolstack().store().write(&node, "7").unwrap();
    let guest = world.boot_connected(vif, linux());
    guest.exercise();
    world.remove(guest);
    script.wait_ended(2);
    let names: Vec<_> = script
        .log()
        .lines()
        .filter(|line| line.starts_with("vif="))
        .map(str::to_owned)
        .collect();
    assert_eq!(names, ["vif=vif1.0", "vif=vif1.0"]);
    world.finish_empty();
}

#[test]
fn the_toolstacks_scripts_are_left_to_it() {
    let world = World::new();
    let script = Script::new(world.machine.dir(), "vif-test", "exit 0");
    let vif = with_script(&world, 1, &script.path);
    world.plug(&vif);
    let guest = world.boot_connected(vif, linux());
    world.remove(guest);
    assert_eq!(script.log(), "");
    world.finish_empty();
}

#[test]
fn a_script_that_exits_with_an_error() {
    let world = World::with(daemon_runs_scripts);
    let script = Script::new(
        world.machine.dir(),
        "vif-bad",
        "echo no such bridge >&2; exit 3",
    );
    let vif = with_script(&world, 1, &script.path);
    let error = world.wait_error(&vif);
    assert!(
        error.contains("vif-bad") && error.contains("exit status 3"),
        "{error:?}"
    );
    world.detach(&vif);
    world.finish_empty();
}

#[test]
fn a_script_that_never_ends_is_killed_with_its_children() {
    let world = World::with(|config| {
        daemon_runs_scripts(config);
        config.hotplug.timeout = Duration::from_secs(1);
    });
    let script = Script::new(
        world.machine.dir(),
        "vif-hung",
        "[ \"$1\" = offline ] && exit 0\nsleep 1000 & echo $! > \"$0.child\"; wait",
    );
    let vif = with_script(&world, 1, &script.path);
    let error = world.wait_error(&vif);
    assert!(error.contains("too long"), "{error:?}");
    let child = fs::read_to_string(script.path.with_added_extension("child")).unwrap();
    let proc = format!("/proc/{}/stat", child.trim());
    // Killed; whoever inherits it may not have reaped it yet.
    until("its child is gone", || {
        fs::read_to_string(&proc).map_or(true, |stat| {
            stat.rsplit(')').next().is_some_and(|s| s.starts_with(" Z"))
        })
    });
    world.detach(&vif);
    world.finish_empty();
}

#[test]
fn scripts_that_cannot_be_run() {
    let world = World::with(daemon_runs_scripts);
    let neighbour_script = Script::new(world.machine.dir(), "vif-good", "exit 0");
    let plain = world.machine.dir().join("not-executable");
    fs::write(&plain, "").unwrap();
    let cases = [
        (
            1,
            Some("/nonexistent/vif-nowhere".to_owned()),
            "vif-nowhere",
        ),
        (
            2,
            Some(plain.to_str().unwrap().to_owned()),
            "not-executable",
        ),
        (3, Some("relative/vif".to_owned()), "relative/vif"),
        (4, None, "script"),
    ];
    let vifs: Vec<_> = cases
        .iter()
        .map(|(dom, script, _)| world.create_as(*dom, |vif| vif.script.clone_from(script)))
        .collect();
    for (vif, (.., text)) in vifs.iter().zip(&cases) {
        let error = world.wait_error(vif);
        assert!(error.contains(text), "{error:?}");
    }
    let good = with_script(&world, 5, &neighbour_script.path);
    neighbour_script.wait_ended(1);
    world.plug(&good);
    let guest = world.boot_connected(good, linux());
    guest.exercise();
}

#[test]
fn a_restarted_daemon_does_not_run_the_script_again() {
    let (mut world, script, guest) = plugged();
    world.restart_daemon();
    guest.exercise();
    assert_eq!(script.runs("online"), 1);
    world.remove(guest);
    script.wait_ended(2);
    assert_eq!((script.runs("online"), script.runs("offline")), (1, 1));
    world.finish_empty();
}

/// What a former daemon has had plugged in is unplugged, also when this one never had the tap.
#[test]
fn a_device_that_goes_while_somebody_holds_its_tap_is_unplugged() {
    let (mut world, script, guest) = plugged();
    world.machine.stop_daemon().unwrap();
    let tap = Tap::create("vif1.0", &TapOptions::default()).unwrap();
    world.machine.start_daemon().unwrap();
    world.wait_status(&guest.vif, "creating");
    world.detach(&guest.vif);
    script.wait_ended(2);
    assert_eq!((script.runs("online"), script.runs("offline")), (1, 1));
    guest.stop().unwrap();
    tap.destroy().unwrap();
    world.finish_empty();
}

/// The tap went with whoever stopped the daemon: what was plugged in is not there any more.
#[test]
fn a_tap_that_is_made_anew_is_plugged_in_anew() {
    let (mut world, script, guest) = plugged();
    guest.exercise();
    world.machine.stop_daemon().unwrap();
    host::ip("link delete vif1.0");
    world.machine.start_daemon().unwrap();
    script.wait_ended(2);
    assert_eq!(script.runs("online"), 2);
    world.run_script(&guest.vif);
    world.wait_status(&guest.vif, "connected");
    guest.exercise();
    world.finish(guest);
}

/// It would leave the tap half plugged in, and be run a second time.
#[test]
fn a_daemon_that_is_told_to_stop_lets_its_scripts_end() {
    let mut world = World::with(daemon_runs_scripts);
    // Each run ends when its gate is there.
    let script = Script::new(
        world.machine.dir(),
        "vif-slow",
        "until [ -e \"$0.$1\" ]; do sleep 0.01; done; echo ended >> \"$0.log\"",
    );
    let open = |command: &str| {
        fs::write(script.path.with_added_extension(command), "").unwrap();
    };
    let ended = || script.log().matches("\nended\n").count();
    let vif = with_script(&world, 1, &script.path);
    script.wait_ended(1);
    world.plug(&vif);
    let socket = world.machine.socket().to_owned();
    let machine = &mut world.machine;
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| machine.stop_daemon().unwrap());
        until("the daemon is stopping", || {
            let answer = client::status(&socket).and_then(|answer| answer.status());
            answer.expect("it has not ended yet").stopping
        });
        open("online");
        stopped.join().unwrap();
    });
    assert_eq!((script.runs("online"), ended()), (1, 1));
    world.restart_daemon();
    let guest = world.boot_connected(vif, linux());
    guest.exercise();
    open("offline");
    world.remove(guest);
    until("the last run has ended", || ended() == 2);
    assert_eq!((script.runs("online"), script.runs("offline")), (1, 1));
    world.finish_empty();
}

/// It would be plugged in in place of the next guest's, which is to get the same name and waits already.
#[test]
fn a_renamed_tap_is_removed_before_the_next_guests_script_looks_for_its_name() {
    let mut world = World::with(daemon_runs_scripts);
    let script = Script::new(
        world.machine.dir(),
        "vif-web",
        "[ \"$1\" = online ] && { ip link show web0 && exit 1; ip link set $vif name web0; }; exit 0",
    );
    let with_name = |world: &World, dom| {
        world.create_as(dom, |vif| {
            vif.script = Some(script.path.to_str().unwrap().to_owned());
            vif.extra.push(("vifname".to_owned(), "web0".to_owned()));
        })
    };
    let first = with_name(&world, 1);
    script.wait_ended(1);
    until("the first has the name", || {
        hotplug::link::exists("web0").unwrap()
    });
    world.machine.stop_daemon().unwrap();
    world.toolstack().remove_vif(&first).unwrap();
    let next = with_name(&world, 2);
    world.machine.start_daemon().unwrap();
    world.wait_init(&next);
    until("the next has the name", || {
        hotplug::link::exists("web0").unwrap()
    });
    hotplug::link::add_ipv4("web0", host_ip(2), 24).unwrap();
    hotplug::link::set_up("web0").unwrap();
    world
        .toolstack()
        .set_hotplug_status(&next, "connected")
        .unwrap();
    let guest = world.boot_connected(next, linux());
    assert_eq!(world.vif_status(&guest.vif).unwrap().vif, "web0");
    guest.exercise();
    world.remove(guest);
    world.finish_empty();
}
