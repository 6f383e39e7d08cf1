// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page accessors against a plain array: every offset, every edge.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use proptest::prelude::*;

use super::{Access, OutsidePage, Page, SharedPage, StaticPage};
use crate::layout::PAGE_SIZE;

fn page() -> SharedPage {
    SharedPage::anonymous().unwrap()
}

fn contents(page: &SharedPage) -> Vec<u8> {
    let mut all = vec![0xee; PAGE_SIZE];
    page.copy_from(0, &mut all).unwrap();
    all
}

#[test]
fn a_fresh_page_is_zero() {
    assert_eq!(contents(&page()), vec![0; PAGE_SIZE]);
}

#[test]
fn words_are_little_endian_and_where_they_should_be() {
    let page = page();
    page.write_words(4092, [0x0403_0201]);
    page.store(0, 0x0d0c_0b0a, Release);
    page.write_words(64, [1, 2, 3]);
    assert_eq!(page.load(0, Acquire), 0x0d0c_0b0a);
    assert_eq!(page.read_words::<3>(64), [1, 2, 3]);
    let all = contents(&page);
    assert_eq!(all[..4], [0x0a, 0x0b, 0x0c, 0x0d]);
    assert_eq!(all[4092..], [1, 2, 3, 4]);
    assert_eq!(all[64..76], [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0]);
}

#[test]
fn clones_are_the_same_page_and_keep_it_alive() {
    let first = page();
    let second = first.clone();
    first.store(8, 7, Relaxed);
    drop(first);
    assert_eq!(second.load(8, Relaxed), 7);
}

#[test]
fn a_static_page_is_written_to_only_where_that_is_allowed() {
    let guests = page();
    guests.copy_to(100, b"hello").unwrap();
    for (access, writable) in [(Access::ReadOnly, false), (Access::ReadWrite, true)] {
        let kept = StaticPage::new(guests.clone(), access);
        let mut seen = [0; 5];
        kept.copy_from(100, &mut seen).unwrap();
        assert_eq!((&seen, kept.access()), (b"hello", access));
        assert_eq!(kept.writable().is_some(), writable);
        assert!(kept.copy_from(4_092, &mut seen).is_err());
    }
}

#[test]
fn the_pages_of_one_mapping_are_distinct() {
    let pages = SharedPage::anonymous_pages(3).unwrap();
    for (page, mark) in pages.iter().zip(1u8..) {
        page.copy_to(0, &[mark; PAGE_SIZE]).unwrap();
    }
    for (page, mark) in pages.iter().zip(1u8..) {
        assert_eq!(contents(page), vec![mark; PAGE_SIZE]);
    }
    assert!(SharedPage::anonymous_pages(0).is_err());
    assert!(SharedPage::anonymous_pages(usize::MAX).is_err());
}

#[test]
fn ranges_outside_the_page_are_refused_whole() {
    let page = page();
    for (offset, len) in [
        (4096, 1),
        (4095, 2),
        (1, 4096),
        (usize::MAX, 1),
        (usize::MAX, 8),
    ] {
        let mut out = vec![0xaa; len];
        assert_eq!(
            page.copy_from(offset, &mut out),
            Err(OutsidePage { offset, len })
        );
        assert_eq!(out, vec![0xaa; len]);
        assert_eq!(page.copy_to(offset, &out), Err(OutsidePage { offset, len }));
    }
    assert_eq!(contents(&page), vec![0; PAGE_SIZE]);
    assert_eq!(page.copy_to(4096, &[]), Ok(()));
    assert_eq!(page.copy_from(4096, &mut []), Ok(()));
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "offset 4096")]
fn a_word_outside_the_page_is_a_bug_in_debug_builds() {
    page().load(4096, Relaxed);
}

#[test]
#[cfg(not(debug_assertions))]
fn a_word_outside_the_page_is_masked_into_it() {
    let page = page();
    page.store(12, 9, Relaxed);
    assert_eq!(page.load(4096 + 12, Relaxed), 9);
    assert_eq!(page.load(usize::MAX & !3, Relaxed), 0);
}

proptest! {
    #[test]
    fn byte_copies_equal_those_of_an_array(
        offset in 0usize..=PAGE_SIZE,
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        fill: u8,
    ) {
        let page = page();
        let mut model = vec![fill; PAGE_SIZE];
        page.copy_to(0, &model).unwrap();
        let fits = offset + bytes.len() <= PAGE_SIZE;
        prop_assert_eq!(page.copy_to(offset, &bytes).is_ok(), fits);
        if fits {
            model[offset..offset + bytes.len()].copy_from_slice(&bytes);
            let mut back = vec![0; bytes.len()];
            page.copy_from(offset, &mut back).unwrap();
            prop_assert_eq!(back, bytes);
        }
        prop_assert_eq!(contents(&page), model);
    }
}
