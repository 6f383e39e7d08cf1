// SPDX-License-Identifier: GPL-3.0-or-later
//! The control ring.
pub mod hash;
pub mod machine;
pub mod message;
pub mod statics;
