// SPDX-License-Identifier: GPL-3.0-or-later
//! Many requests in the time of one: all are sent, and then the answers are awaited.
//!
//! xenstored answers a request in some microseconds; waking it up and being woken for the
//! answer takes longer, and on a busy machine much longer. A device takes dozens of reads
//! to attach, and most of them do not depend on one another.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use xenstore_rs::Xs;

/// A store that can be asked for several things at once. The order of requests is kept.
///
/// What is provided asks one by one, which is right for any store.
pub trait XsMany: Xs {
    /// Reads nodes. The answers are in the order of the paths.
    fn read_many<P: AsRef<str>>(&self, paths: &[P]) -> Vec<io::Result<Box<str>>> {
        paths.iter().map(|path| self.read(path.as_ref())).collect()
    }

    /// Writes nodes.
    ///
    /// # Errors
    /// The first one; others may have been written all the same.
    fn write_many<P: AsRef<str>>(&self, nodes: &[(P, &str)]) -> io::Result<()> {
        nodes
            .iter()
            .try_for_each(|(path, value)| self.write(path.as_ref(), value))
    }

    /// Removes nodes. The answers are in the order of the paths.
    fn rm_many<P: AsRef<str>>(&self, paths: &[P]) -> Vec<io::Result<()>> {
        paths.iter().map(|path| self.rm(path.as_ref())).collect()
    }
}

/// Nodes that were read together, to be looked at one by one.
#[derive(Debug)]
pub struct Ahead<'s, S> {
    store: &'s S,
    read: RefCell<BTreeMap<String, io::Result<Box<str>>>>,
}

impl<'s, S: XsMany> Ahead<'s, S> {
    /// Reads the nodes that are likely to be needed.
    pub fn new(store: &'s S, paths: Vec<String>) -> Self {
        let read = store.read_many(&paths);
        Self {
            store,
            read: RefCell::new(paths.into_iter().zip(read).collect()),
        }
    }

    /// A node that need not exist. One that was not read ahead, or was looked at before,
    /// is read now.
    ///
    /// # Errors
    /// That of the store, except that the node is missing.
    pub fn optional(&self, path: &str) -> io::Result<Option<Box<str>>> {
        let read = self.read.borrow_mut().remove(path);
        present(read.unwrap_or_else(|| self.store.read(path)))
    }
}

/// That a node is missing is no error.
pub(crate) fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeXenstored;

    /// Another store, which can do one thing at a time.
    struct Slow(crate::Client, RefCell<Vec<String>>);

    impl Xs for Slow {
        fn directory(&self, path: &str) -> io::Result<Vec<Box<str>>> {
            self.0.directory(path)
        }
        fn read(&self, path: &str) -> io::Result<Box<str>> {
            self.1.borrow_mut().push(path.to_owned());
            self.0.read(path)
        }
        fn write(&self, path: &str, data: &str) -> io::Result<()> {
            self.0.write(path, data)
        }
        fn rm(&self, path: &str) -> io::Result<()> {
            self.0.rm(path)
        }
    }

    impl XsMany for Slow {}

    fn slow() -> (FakeXenstored, Slow) {
        let store = FakeXenstored::spawn().unwrap();
        let client = store.client(0).unwrap();
        (store, Slow(client, RefCell::default()))
    }

    #[test]
    fn any_store_will_do() {
        let (_store, slow) = slow();
        slow.write_many(&[("a", "1"), ("b", "2")]).unwrap();
        let read = slow.read_many(&["b", "none", "a"]);
        let read: Vec<_> = read.into_iter().map(|r| present(r).unwrap()).collect();
        assert_eq!(read, [Some("2".into()), None, Some("1".into())]);
        assert!(slow.rm_many(&["a", "b"]).iter().all(Result::is_ok));
        let refused = slow.write_many(&[("", "1"), ("c", "3")]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn what_was_read_ahead_is_not_asked_for_again() {
        let (_store, slow) = slow();
        slow.write_many(&[("a", "1"), ("b", "2")]).unwrap();
        let ahead = Ahead::new(&slow, ["a", "none"].map(str::to_owned).to_vec());
        slow.1.borrow_mut().clear();
        assert_eq!(ahead.optional("a").unwrap().as_deref(), Some("1"));
        assert_eq!(ahead.optional("none").unwrap(), None);
        assert!(slow.1.borrow().is_empty());
        slow.write("a", "3").unwrap();
        assert_eq!(ahead.optional("a").unwrap().as_deref(), Some("3"));
        assert_eq!(ahead.optional("b").unwrap().as_deref(), Some("2"));
        assert_eq!(*slow.1.borrow(), ["a", "b"]);
    }
}
