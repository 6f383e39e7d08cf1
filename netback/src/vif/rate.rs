// SPDX-License-Identifier: GPL-3.0-or-later
//! A rate: so many bytes in such a time, as the toolstack and the operator write it.
//!
//! Two spellings, neither of them the guest's: the backend node `rate` is "bytes,microseconds"
//! (libxl writes it from the vif line's `rate=`, by default for 50 ms), and the configuration has
//! the form of the vif line, "100Mb/s". Whoever reads one decides what becomes of one that makes
//! no sense; the [`bucket`](super::bucket) keeps to it.

use std::fmt;

/// So many bytes in so many microseconds; neither is 0, so a rate never silences a vif.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    bytes: u64,
    micros: u64,
    burst: u64,
}

/// Why a text is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not of the form that is expected there.
    #[error("it is not of the form {0}")]
    Form(&'static str),
    /// Nothing, or something in no time.
    #[error("it has a zero, and a limit of nothing would silence the vif")]
    Zero,
}

impl Rate {
    const fn new(bytes: u64, micros: u64, burst: u64) -> Result<Self, RateError> {
        match (bytes, micros) {
            (0, _) | (_, 0) => Err(RateError::Zero),
            _ => Ok(Self {
                bytes,
                micros,
                burst,
            }),
        }
    }

    /// What [`Rate::from_config`] takes, in words.
    pub const CONFIG_FORM: &str =
        "a rate like \"100Mb/s\" (bits) or \"12MB/s\" (bytes), in units of K, M or G";

    /// Reads the backend node `rate`: "bytes,microseconds", both decimal, at most 64 bits each.
    ///
    /// # Errors
    ///
    /// [`RateError`]; the vif is to go without a limit then, as with the kernel's backend.
    pub fn from_node(text: &str) -> Result<Self, RateError> {
        let form = RateError::Form("\"bytes,microseconds\"");
        let (bytes, micros) = text.trim().split_once(',').ok_or(form)?;
        let (bytes, micros) = (digits(bytes).ok_or(form)?, digits(micros).ok_or(form)?);
        Self::new(bytes, micros, bytes)
    }

    /// Reads a rate as a vif line has it (xl-network-configuration(5), without its interval):
    /// a number of at most 32 bits, then nothing, `K`, `M` or `G` (powers of 1000), then `b` for
    /// bits or `B` for bytes, then `/s`.
    ///
    /// # Errors
    ///
    /// [`RateError`].
    pub fn from_config(text: &str) -> Result<Self, RateError> {
        let form = RateError::Form(Self::CONFIG_FORM);
        let amount = text.strip_suffix("/s").ok_or(form)?;
        let (amount, bits_each) = match (amount.strip_suffix('b'), amount.strip_suffix('B')) {
            (Some(amount), _) => (amount, 1),
            (_, Some(amount)) => (amount, 8),
            _ => return Err(form),
        };
        let units = [('K', 1_000), ('M', 1_000_000), ('G', 1_000_000_000)];
        let (number, unit) = units
            .iter()
            .find_map(|(letter, unit)| Some((amount.strip_suffix(*letter)?, *unit)))
            .unwrap_or((amount, 1));
        let number = digits(number).and_then(|number| u32::try_from(number).ok());
        let bits = number
            .and_then(|number| u64::from(number).checked_mul(unit)?.checked_mul(bits_each))
            .ok_or(form)?;
        // Bits in one second are as many bytes in eight; a burst is what 50 ms bring.
        Self::new(bits, 8_000_000, bits / 160)
    }

    /// Bytes in each [`micros`](Self::micros).
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// The time for [`bytes`](Self::bytes), in microseconds.
    pub const fn micros(self) -> u64 {
        self.micros
    }

    /// The largest burst, in bytes: for a node, what its interval brings. The
    /// [`bucket`](super::bucket) has a least burst of its own, and takes the larger of the two.
    pub const fn burst(self) -> u64 {
        self.burst
    }

    /// The rate in units of a million bits per second, as people compare it with a link's.
    pub fn mbit_per_second(self) -> f64 {
        // Bits per microsecond. A report: the 53 bits of a double are enough.
        self.bytes() as f64 * 8.0 / self.micros() as f64
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes in {} us", self.bytes, self.micros)
    }
}

/// A number of digits only: what `str::parse` takes beyond that (a plus sign) is no number here.
fn digits(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(text: &str) -> Result<(u64, u64), RateError> {
        Rate::from_node(text).map(|rate| (rate.bytes(), rate.micros()))
    }

    #[test]
    fn the_node_as_libxl_writes_it() {
        assert_eq!(node("10485,50000"), Ok((10_485, 50_000)));
        assert_eq!(node("1,1\n"), Ok((1, 1)));
        assert_eq!(
            node("18446744073709551615,18446744073709551615"),
            Ok((u64::MAX, u64::MAX))
        );
    }

    #[test]
    fn what_is_no_rate() {
        let form = Err(RateError::Form("\"bytes,microseconds\""));
        for text in [
            "",
            ",",
            "10485",
            "10485,",
            ",50000",
            "10485,50000,1",
            "-1,50000",
            "10485,-1",
            "+1,1",
            "0x10,50",
            "1.5,50",
            "1 ,2",
            "18446744073709551616,1",
            "1,18446744073709551616",
            "\u{661},1",
            "unlimited",
        ] {
            assert_eq!(node(text), form, "{text:?}");
        }
        assert_eq!(node(&"9".repeat(4096)), form);
        for text in ["0,50000", "10485,0", "0,0", "00,1"] {
            assert_eq!(node(text), Err(RateError::Zero), "{text:?}");
        }
    }

    #[test]
    fn the_configuration_as_a_vif_line_has_it() {
        for (text, mbit) in [
            ("100Mb/s", 100.0),
            ("1Gb/s", 1_000.0),
            ("250KB/s", 2.0),
            ("12MB/s", 96.0),
            ("8b/s", 0.000_008),
            ("1B/s", 0.000_008),
            ("4294967295B/s", 34_359.738_36),
        ] {
            let rate = Rate::from_config(text).unwrap();
            assert!(
                (rate.mbit_per_second() / mbit - 1.0).abs() < 1e-12,
                "{text}: {rate}"
            );
        }
        for text in [
            "",
            "100",
            "100Mb",
            "Mb/s",
            "100mb/s",
            "100M/s",
            "100 Mb/s",
            "-1Mb/s",
            "1.5Gb/s",
            "4294967296b/s",
            "99999999999999999999GB/s",
            "100Mb/s@50ms",
        ] {
            assert!(
                matches!(Rate::from_config(text), Err(RateError::Form(_))),
                "{text:?}"
            );
        }
        assert_eq!(Rate::from_config("0Mb/s"), Err(RateError::Zero));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = (Rate::from_node(&text), Rate::from_config(&text));
        }
    }
}
