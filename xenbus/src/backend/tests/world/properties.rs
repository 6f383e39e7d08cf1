// SPDX-License-Identifier: GPL-3.0-or-later
//! From wherever the world has got to, a well-behaved frontend is served again, one that
//! waits for an answer gets it, and a detach ends with nothing left.

use proptest::prelude::*;

use super::*;

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
        (settled, faulty) in any::<(bool, bool)>(),
    ) {
        for step in &steps {
            world.step(step);
        }
        if settled {
            world.settle();
        }
        world.step(&Step::Handle);
        if faulty {
            world.step(&Step::Fault);
        }
        world.step(&Step::TakeOver(true));
        world.settle();
        if world.can_serve() {
            world.step(&Step::Hotplug(true));
            prop_assert_eq!(world.own, Some(S::Connected), "{:?}", world);
            prop_assert!(world.device.phase().is_connected());
            prop_assert_eq!((world.tried, world.device.error()), (Some(world.given), None));
        }
    }

    #[test]
    fn a_frontend_that_reconfigures_is_answered(
        mut world in worlds(),
        steps in steps(),
        (settled, works) in any::<(bool, bool)>(),
        meanwhile in prop::sample::subsequence(vec![Step::NetifLost, Step::Detach], 0..=2),
    ) {
        for step in &steps {
            world.step(step);
        }
        if settled {
            world.settle();
        }
        world.step(&Step::Handle);
        world.frontend_writes("7", true);
        world.step(&Step::Worker(works));
        world.settle();
        if !world.forgotten && world.own.is_some() {
            prop_assert_eq!(world.own, Some(S::Reconfigured), "{:?}", world);
            // Whatever becomes of the device meanwhile.
            for step in &meanwhile {
                world.step(step);
                world.settle();
                prop_assert_eq!(world.own, Some(S::Reconfigured), "{:?}", world);
            }
            world.frontend_writes("4", true);
            world.settle();
            world.step(&Step::Hotplug(true));
            world.settle();
            let done = matches!(world.own, Some(S::Connected | S::Closing | S::Closed));
            prop_assert!(done, "{:?}", world);
        }
    }
}
