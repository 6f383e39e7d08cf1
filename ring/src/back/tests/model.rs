// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both ends against a model of plain counters, and the back end against arbitrary pages.

use proptest::prelude::*;

use super::*;

/// One step of the model.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push(u8),
    Publish,
    Take(u8),
    Respond(u8),
    Show,
    Read,
    ArmBack,
    ArmFront,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..80).prop_map(Step::Push),
        Just(Step::Publish),
        (0u8..80).prop_map(Step::Take),
        (0u8..80).prop_map(Step::Respond),
        Just(Step::Show),
        Just(Step::Read),
        Just(Step::ArmBack),
        Just(Step::ArmFront),
    ]
}

proptest! {
    /// Any interleaving of whole steps, from any index: requests and answers arrive once, in
    /// order, and whoever sleeps is woken.
    #[test]
    fn nothing_is_lost_or_invented(start: u32, steps in prop::collection::vec(step(), 0..60)) {
        let (mut front, mut back) = tx_at(start);
        let (mut pushed, mut published, mut taken) = (0u16, 0u16, 0u16);
        let (mut answered, mut shown, mut read) = (0u16, 0u16, 0u16);
        let (mut back_sleeps, mut front_sleeps) = (true, true);
        for step in steps {
            match step {
                Step::Push(count) => for _ in 0..count {
                    let full = pushed - read == 256;
                    prop_assert_eq!(front.push(request(pushed, 0, 60)).is_err(), full);
                    pushed += u16::from(!full);
                },
                Step::Publish => {
                    let notify = front.publish();
                    if back_sleeps && published < pushed { prop_assert!(notify); }
                    back_sleeps &= !notify;
                    published = pushed;
                }
                Step::Take(count) => {
                    prop_assert_eq!(back.unconsumed(), Ok(u32::from(published - taken)));
                    for _ in 0..count.min(u8::try_from(published - taken).unwrap_or(u8::MAX)) {
                        prop_assert_eq!(back.take().unwrap().as_request().id, taken);
                        taken += 1;
                    }
                }
                Step::Respond(count) => for _ in 0..count {
                    let none = answered == taken;
                    prop_assert_eq!(back.respond(okay(answered)).is_err(), none);
                    answered += u16::from(!none);
                },
                Step::Show => {
                    let notify = back.publish().is_needed();
                    if front_sleeps && shown < answered { prop_assert!(notify); }
                    front_sleeps &= !notify;
                    shown = answered;
                }
                Step::Read => for (index, id, _) in read_all(&mut front) {
                    prop_assert_eq!((index, id), (start.wrapping_add(u32::from(read)), read));
                    read += 1;
                },
                Step::ArmBack => {
                    let more = back.arm().unwrap();
                    prop_assert_eq!(more, taken < published);
                    back_sleeps = !more;
                }
                Step::ArmFront => {
                    let more = front.arm().unwrap();
                    prop_assert_eq!(more, read < shown);
                    front_sleeps = !more;
                }
            }
            prop_assert!(read <= shown && shown <= answered && answered <= taken);
        }
    }

    /// Any page at all: no panic, never more requests than slots, and bounded work.
    #[test]
    fn any_page_is_survived(
        indices: [u32; 4],
        near in -300i64..300,
        lies in prop::collection::vec(any::<u32>(), 0..8),
    ) {
        let page = SharedPage::anonymous().unwrap();
        page.write_words(0, indices);
        let near = u32::try_from((i64::from(indices[2]) + near).rem_euclid(1 << 32)).unwrap();
        page.write_words(0, [near]);
        let Ok(mut back) = BackRing::<TxRing>::attach(page.clone()) else { return Ok(()) };
        for lie in std::iter::once(near).chain(lies) {
            page.write_words(0, [lie]);
            let mut slots = [TxSlot::default(); 300];
            let _ = back.arm();
            let _ = back.arm_for(lie);
            if let Ok(taken) = back.take_into(&mut slots) {
                prop_assert!(taken <= 256);
            }
            prop_assert!(back.unanswered() <= 256);
            let _ = back.respond(okay(1));
            let _ = back.publish();
        }
    }
}
