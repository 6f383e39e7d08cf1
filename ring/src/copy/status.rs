// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the hypervisor says of one grant operation.

use std::fmt;

/// How the hypervisor ended one operation (`GNTST_*` of Xen's `grant_table.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GrantStatus(i16);

impl GrantStatus {
    /// Done.
    pub const OKAY: Self = Self(0);
    /// Unspecified failure; also what an operation has before it was carried out.
    pub const GENERAL_ERROR: Self = Self(-1);
    /// No such domain.
    pub const BAD_DOMAIN: Self = Self(-2);
    /// The reference is not granted (any more).
    pub const BAD_GREF: Self = Self(-3);
    /// Granted, but not for this access.
    pub const PERMISSION_DENIED: Self = Self(-8);
    /// The granted page is not one.
    pub const BAD_PAGE: Self = Self(-9);
    /// The range crosses the page.
    pub const BAD_COPY_ARG: Self = Self(-10);
    /// The page is paged out.
    pub const TRY_AGAIN: Self = Self(-12);

    /// The status with this raw code.
    #[must_use]
    pub const fn new(code: i16) -> Self {
        Self(code)
    }

    /// The raw code.
    #[must_use]
    pub const fn raw(self) -> i16 {
        self.0
    }

    /// Whether the bytes have been copied.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        self.0 == 0
    }

    /// What the code means.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.0 {
            0 => "done",
            -1 => "general error",
            -2 => "no such domain",
            -3 => "the grant reference is not granted",
            -8 => "permission denied by the grant",
            -9 => "the granted page is bad",
            -10 => "the range crosses the page",
            -12 => "the page is paged out",
            -13 => "no space",
            _ => "unknown grant status",
        }
    }
}

impl fmt::Display for GrantStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}
