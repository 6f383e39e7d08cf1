// SPDX-License-Identifier: GPL-3.0-or-later
//! Numbers for people: three significant digits and a unit, and times as a clock would say them.

/// Bytes in binary units: `999 B`, `1.00 KiB`, `4.10 GiB`.
pub(super) fn bytes(n: u64) -> String {
    scaled(
        n,
        1024.0,
        1000,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
        " ",
    )
}

/// A count in decimal units, exact below 10,000: `9999`, `10.0k`, `1.23M`.
pub(super) fn count(n: u64) -> String {
    scaled(n, 1000.0, 10_000, &["", "k", "M", "G", "T", "P", "E"], "")
}

/// A rate in Mbit/s: `0.002 Mbit/s`, `1.68 Mbit/s`, `99.5 Mbit/s`, `10000 Mbit/s`.
pub(super) fn mbit(rate: f64) -> String {
    let digits = match rate {
        ..1.0 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{rate:.digits$} Mbit/s")
}

fn scaled(n: u64, base: f64, exact_below: u64, units: &[&str], space: &str) -> String {
    let first = units.first().copied().unwrap_or_default();
    if n < exact_below {
        return format!("{n}{space}{first}");
    }
    // Three digits are shown, so the 53 bits of a double are enough.
    let mut value = n as f64;
    let mut unit = first;
    for next in units.iter().skip(1) {
        value /= base;
        unit = next;
        if value < 999.5 {
            break;
        }
    }
    let digits = if value < 9.995 {
        2
    } else {
        usize::from(value < 99.95)
    };
    format!("{value:.digits$}{space}{unit}")
}

/// A time in seconds: `59 s`, `1 min 01 s`, `2 h 05 min`, `3 d 04 h`.
pub(super) fn seconds(n: u64) -> String {
    match n {
        0..60 => format!("{n} s"),
        60..3600 => format!("{} min {:02} s", n / 60, n % 60),
        3600..86_400 => format!("{} h {:02} min", n / 3600, n / 60 % 60),
        _ => format!("{} d {:02} h", n / 86_400, n / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden() {
        let table = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1024, "1.00 KiB"),
            (10_234, "9.99 KiB"),
            (10_240, "10.0 KiB"),
            (1_023_487, "999 KiB"),
            (1_023_488, "0.98 MiB"),
            (4_402_341_478, "4.10 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (n, text) in table {
            assert_eq!(bytes(n), text, "{n}");
        }
        let table = [
            (0, "0"),
            (9999, "9999"),
            (10_000, "10.0k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
            (u64::MAX, "18.4E"),
        ];
        for (n, text) in table {
            assert_eq!(count(n), text, "{n}");
        }
        let table = [
            (0.000_001, "0.000 Mbit/s"),
            (0.002, "0.002 Mbit/s"),
            (1.6776, "1.68 Mbit/s"),
            (10.0, "10.0 Mbit/s"),
            (99.94, "99.9 Mbit/s"),
            (10_000.0, "10000 Mbit/s"),
        ];
        for (rate, text) in table {
            assert_eq!(mbit(rate), text, "{rate}");
        }
        let table = [
            (0, "0 s"),
            (61, "1 min 01 s"),
            (7500, "2 h 05 min"),
            (273_600, "3 d 04 h"),
        ];
        for (n, text) in table {
            assert_eq!(seconds(n), text, "{n}");
        }
    }

    proptest! {
        #[test]
        fn is_never_wide(n: u64) {
            prop_assert!(bytes(n).len() <= 8, "{}", bytes(n));
            prop_assert!(count(n).len() <= 5, "{}", count(n));
        }
    }
}
