// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names for the small integers of Xen, so that they cannot be confused with one another:
//! domains, grant references, and the two numbers that one event channel has (one at each end).
//!
//! The types carry no promise about the value: a grant reference or a remote port comes from the
//! frontend's directory in xenstore and is as trustworthy as the frontend.

use std::fmt;

/// Declares one newtype over an integer with the traits that all of them share.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($raw);

        impl $name {
            /// Names the raw number.
            #[must_use]
            pub const fn new(raw: $raw) -> Self {
                Self(raw)
            }

            /// The raw number, as the hypervisor's interface wants it.
            #[must_use]
            pub const fn raw(self) -> $raw {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A domain, as `xl list` numbers it.
    DomId(xen_sys::domid_t)
}

id! {
    /// An entry of the *granting* domain's grant table. Meaningless without that domain.
    GrantRef(u32)
}

id! {
    /// The frontend's end of an event channel: the number that it wrote into xenstore.
    RemotePort(u32)
}

id! {
    /// Our end of an event channel: the number that the hypervisor gave us when we bound it.
    LocalPort(xen_sys::evtchn_port_t)
}
