// SPDX-License-Identifier: GPL-3.0-or-later
//! Paths as the toolstack writes them, and every way in which they can lie.

use proptest::prelude::*;

use super::*;

fn device(dom: u16, handle: u32) -> DevicePath {
    DevicePath::new(DomId::new(dom).unwrap(), handle)
}

#[test]
fn paths_are_those_of_the_recorded_trace() {
    let vif = device(1, 0);
    assert_eq!(vif.dir(), "backend/vif/1/0");
    assert_eq!(
        vif.key(Key::HotplugStatus),
        "backend/vif/1/0/hotplug-status"
    );
    assert_eq!(vif.error_node(), "error/backend/vif/1/0/error");
    let front = FrontendPath::check(vif, "/local/domain/1/device/vif/0", "1").unwrap();
    assert_eq!(front.state(), "/local/domain/1/device/vif/0/state");
    assert_eq!(front.dom().raw(), 1);
}

#[test]
fn a_frontend_of_another_guest_is_refused() {
    let vif = device(7, 0);
    let other = PathError::OtherGuest {
        device: vif,
        found: DomId::new(8).unwrap(),
    };
    assert_eq!(
        FrontendPath::check(vif, "/local/domain/8/device/vif/0", "8"),
        Err(other.clone())
    );
    assert_eq!(
        FrontendPath::check(vif, "/local/domain/8/device/vif/0", "7"),
        Err(other.clone())
    );
    assert_eq!(
        FrontendPath::check(vif, "/local/domain/7/device/vif/0", "8"),
        Err(other)
    );
}

#[test]
fn anything_but_a_vif_directory_is_refused() {
    let vif = device(7, 0);
    for bad in [
        "",
        "device/vif/0",
        "/local/domain/7/device/vif/",
        "/local/domain/7/device/vif/0/",
        "/local/domain/7/device/vif/0/../../../8/device/vif/0",
        "/local/domain/7/device/vbd/0",
        "/local/domain/07/device/vif/0",
        "/local/domain/+7/device/vif/0",
        "/local/domain/7/device/vif/-1",
        "/local/domain/7/device/vif/4294967296",
        "/local/domain/65536/device/vif/0",
        "/libxl/7/device/vif/0",
    ] {
        assert!(
            matches!(
                FrontendPath::check(vif, bad, "7"),
                Err(PathError::Frontend { .. })
            ),
            "{bad:?}"
        );
    }
    for bad in ["", "7 ", "-7", "0x7", "32752", "65543"] {
        assert!(
            matches!(
                FrontendPath::check(vif, "/local/domain/7/device/vif/0", bad),
                Err(PathError::FrontendId { .. })
            ),
            "{bad:?}"
        );
    }
}

#[test]
fn watch_paths_are_about_the_nearest_known_thing() {
    let vif = device(1, 0);
    for (path, subject) in [
        ("backend/vif", Subject::Root),
        ("backend", Subject::Root),
        ("backend/vifx/1/0", Subject::Root),
        ("backend/vif/x/0/state", Subject::Root),
        ("backend/vif/1", Subject::Domain(vif.dom)),
        ("backend/vif/1/x", Subject::Domain(vif.dom)),
        ("backend/vif/1/0", Subject::Device(vif)),
        ("backend/vif/1/0/feature-sg", Subject::Device(vif)),
        ("backend/vif/1/0/", Subject::Device(vif)),
        ("backend/vif/1/0/state", Subject::Key(vif, Key::State)),
        (
            "backend/vif/1/0/state/deep/below",
            Subject::Key(vif, Key::State),
        ),
    ] {
        assert_eq!(Subject::of(path), subject, "{path}");
    }
}

#[test]
fn key_names_are_distinct_and_found_again() {
    for key in Key::ALL {
        assert_eq!(Key::from_name(key.name()), Some(key));
    }
}

proptest! {
    #[test]
    fn a_subject_is_its_own_path(dom in 0u16..0x7ff0, handle: u32, key in 0usize..Key::ALL.len()) {
        let vif = device(dom, handle);
        for subject in [Subject::Root, Subject::Domain(vif.dom), Subject::Device(vif), Subject::Key(vif, Key::ALL[key])] {
            prop_assert_eq!(Subject::of(&subject.path()), subject);
        }
    }

    #[test]
    fn no_path_panics_and_truncation_is_stable(path in ".{0,80}") {
        let subject = Subject::of(&path);
        prop_assert_eq!(Subject::of(&subject.path()), subject);
    }
}
