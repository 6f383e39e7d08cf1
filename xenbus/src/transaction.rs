// SPDX-License-Identifier: GPL-3.0-or-later
//! Transactions: all or nothing, and again if somebody else was faster.

use std::io;
use std::sync::Arc;

use xenstore_rs::{Xs, XsTransaction, XsTransactionSpan};

use crate::client::Shared;
use crate::many::XsMany;
use crate::perms::Perm;

/// How often [`transact`] tries before it gives up.
const TRIES: u32 = 100;

/// Runs `f` in a transaction and commits it, again and again if another client's
/// change came between (EAGAIN), a hundred times at most. `f` sees a fresh
/// transaction each time; if it fails the transaction is abandoned.
///
/// # Errors
/// That of `f` or of the store; `WouldBlock` when the tries are used up.
pub fn transact<S, T>(store: &S, mut f: impl FnMut(&S::Span) -> io::Result<T>) -> io::Result<T>
where
    S: XsTransaction,
    S::Span: XsTransactionSpan,
{
    let mut tries = 0;
    loop {
        tries += 1;
        let span = store.transaction()?;
        let outcome = match f(&span) {
            Ok(value) => span.commit().map(|()| value),
            Err(error) => Err(error),
        };
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < TRIES => {}
            outcome => return outcome,
        }
    }
}

/// A transaction. Dropping it abandons it.
#[derive(Debug)]
pub struct Transaction {
    shared: Arc<Shared>,
    id: u32,
    open: bool,
}

impl Transaction {
    pub(crate) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let id = shared.start_transaction()?;
        Ok(Self {
            shared,
            id,
            open: true,
        })
    }

    /// As [`crate::Client::mkdir`].
    ///
    /// # Errors
    /// What xenstored answers.
    pub fn mkdir(&self, path: &str) -> io::Result<()> {
        self.shared.mkdir(self.id, path)
    }

    /// As [`crate::Client::get_perms`].
    ///
    /// # Errors
    /// What xenstored answers, or `InvalidData`.
    pub fn get_perms(&self, path: &str) -> io::Result<Vec<Perm>> {
        self.shared.get_perms(self.id, path)
    }

    /// As [`crate::Client::set_perms`].
    ///
    /// # Errors
    /// What xenstored answers.
    pub fn set_perms(&self, path: &str, perms: &[Perm]) -> io::Result<()> {
        self.shared.set_perms(self.id, path, perms)
    }

    /// Makes nodes, in this order; sent together ([`XsMany`]).
    ///
    /// # Errors
    /// The first one; others may have been made all the same.
    pub fn mkdir_many<P: AsRef<str>>(&self, paths: &[P]) -> io::Result<()> {
        self.shared.mkdir_many(self.id, paths)
    }

    /// Sets the permissions of nodes; sent together ([`XsMany`]).
    ///
    /// # Errors
    /// The first one; others may have been set all the same.
    pub fn set_perms_many<P: AsRef<str>>(&self, nodes: &[(P, &[Perm])]) -> io::Result<()> {
        self.shared.set_perms_many(self.id, nodes)
    }
}

impl Xs for Transaction {
    fn directory(&self, path: &str) -> io::Result<Vec<Box<str>>> {
        self.shared.directory(self.id, path)
    }

    fn read(&self, path: &str) -> io::Result<Box<str>> {
        self.shared.read(self.id, path)
    }

    fn write(&self, path: &str, data: &str) -> io::Result<()> {
        self.shared.write(self.id, path, data)
    }

    fn rm(&self, path: &str) -> io::Result<()> {
        self.shared.rm(self.id, path)
    }
}

impl XsMany for Transaction {
    fn read_many<P: AsRef<str>>(&self, paths: &[P]) -> Vec<io::Result<Box<str>>> {
        self.shared.read_many(self.id, paths)
    }

    fn write_many<P: AsRef<str>>(&self, nodes: &[(P, &str)]) -> io::Result<()> {
        self.shared.write_many(self.id, nodes)
    }

    fn rm_many<P: AsRef<str>>(&self, paths: &[P]) -> Vec<io::Result<()>> {
        self.shared.rm_many(self.id, paths)
    }
}

impl XsTransactionSpan for Transaction {
    fn commit(mut self) -> io::Result<()> {
        // Over in any case: xenstored forgets the transaction also when it fails.
        self.open = false;
        self.shared.end_transaction(self.id, true)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.open
            && let Err(error) = self.shared.end_transaction(self.id, false)
        {
            // A lost connection has taken the transaction with it.
            tracing::debug!(%error, "a transaction could not be abandoned");
        }
    }
}
