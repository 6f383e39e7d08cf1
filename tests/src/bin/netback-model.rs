// SPDX-License-Identifier: GPL-3.0-or-later
//! The model guest on a real Xen: its frontend drives a vif from user space inside a real domain, and asks its backend
//! for what Linux's netfront never does. `tests/xen` puts it into a guest and into dom0.
//!
//! ```text
//! netback-model guest ADDRESS/PREFIX IN OUT     in the guest, instead of netfront: serves its vif, and commands
//! netback-model probe ADDRESS MAC BRIDGE BYTES  in dom0: pings, datagrams, TCP both ways, every byte compared
//! ```
//!
//! A command is one line in the FIFO `IN`, its answer one line in the FIFO `OUT`: "ok ..." or "failed ...".

use std::error::Error;
use std::fmt::Display;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV6};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use netback::demo::guest::control::{self, Answer, Control, ExpectedHash};
use netback::demo::guest::domain::Domain;
use netback::demo::guest::netfront::{Netfront, Phase};
use netback::demo::guest::options::FrontendOptions;
use netback::demo::guest::queue::MulticastChange;
use netback::demo::guest::store::FrontendStore;
use netback::demo::guest::{Guest, GuestAddress};
use netback::demo::probe::{self, Bound, Peer};
use xen_ring::DomId;
use xenbus::{Client, Xs};

/// How long anything may take on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Slower than any transfer there: when to give up one that goes on, never how fast it must be.
const BYTES_PER_SECOND: u64 = 500_000;
/// The hash key of Microsoft's description of the Toeplitz hash, of 40 bytes.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];
const TOEPLITZ: u32 = 1;
/// The Ethernet address of the IPv4 group 239.1.2.3 (RFC 1112, section 6.4).
const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03];
const ALL_TYPES: u8 = 0xf;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["guest", address, commands, answers] => serve(address, commands, answers),
        ["probe", address, mac, bridge, bytes] => exercise(address, mac, bridge, bytes),
        _ => Err(
            "usage: netback-model guest ADDRESS/PREFIX IN OUT | probe ADDRESS MAC BRIDGE BYTES"
                .into(),
        ),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("netback-model: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything through the host's own stack: what arrives is compared byte by byte.
fn exercise(address: &str, mac: &str, bridge: &str, bytes: &str) -> Outcome<()> {
    let (guest, bytes): (Ipv4Addr, u64) = (address.parse()?, bytes.parse()?);
    let (mac, scope) = (mac_of(mac)?, nix::net::if_::if_nametoindex(bridge)?);
    let on_link = GuestAddress {
        mac,
        ip: guest,
        prefix: 32,
        mtu: 1500,
    }
    .link_local();
    reach(guest)?;
    for payload in [0, 56, 1_472] {
        let pings = probe::ping(guest, 10, payload, PATIENCE)?;
        expect("pings answered", pings.answered, pings.sent)?;
    }
    for payload in [1, 100, 1_472] {
        probe::udp_echo(guest, payload, 5)?;
    }
    let bound = Bound {
        bytes,
        time: PATIENCE + Duration::from_secs(bytes / BYTES_PER_SECOND),
    };
    for peer in [
        Peer::from(guest),
        Peer::from(SocketAddrV6::new(on_link, 0, 0, scope)),
    ] {
        let to = probe::tcp_to_guest(peer, bound)?;
        expect("bytes to the guest", to.bytes, bytes)?;
        let from = probe::tcp_from_guest(peer, bound)?;
        if from.bytes < bytes {
            return Err(format!("of {bytes} bytes {} came from the guest", from.bytes).into());
        }
    }
    println!("pings, datagrams, and {bytes} bytes of TCP each way over IPv4 and IPv6 are whole");
    Ok(())
}

/// Waits until a ping is answered: the host drops what it sends before it has taken note of the carrier.
fn reach(guest: Ipv4Addr) -> Outcome<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match probe::ping(guest, 1, 56, Duration::from_secs(1)) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => {}
        }
    }
}

fn serve(address: &str, commands: &str, answers: &str) -> Outcome<()> {
    let (ip, prefix) = address
        .split_once('/')
        .ok_or("an address has a prefix length")?;
    let store = Client::connect(PATIENCE)?;
    let backend = store.read("device/vif/0/backend-id")?.into_string();
    let domain = Domain::Real {
        backend: DomId::new(backend.trim().parse()?),
    };
    let mac = mac_of(store.read("device/vif/0/mac")?.into_string().trim())?;
    let options = FrontendOptions {
        control_ring: true,
        ..FrontendOptions::default()
    };
    let address = GuestAddress {
        mac,
        ip: ip.parse()?,
        prefix: prefix.parse()?,
        mtu: 1500,
    };
    drop(store);
    let guest = Guest::spawn(address, move || {
        let store = FrontendStore::open(Client::connect(PATIENCE)?, 0)?;
        Ok(Netfront::new(domain, store, options))
    })?;
    loop {
        for line in BufReader::new(fs::File::open(commands)?).lines() {
            let line = line?;
            let answer = obey(&guest, &line).map_or_else(
                |error| format!("failed {line}: {error}"),
                |said| format!("ok {said}"),
            );
            fs::write(answers, answer + "\n")?;
        }
    }
}

fn mac_of(text: &str) -> Outcome<[u8; 6]> {
    let parts = text.split(':').map(|part| u8::from_str_radix(part, 16));
    let bytes: Vec<u8> = parts.collect::<Result<_, _>>()?;
    Ok(<[u8; 6]>::try_from(bytes).map_err(|_| format!("'{text}' is no Ethernet address"))?)
}

/// Does one command inside the guest.
fn obey(guest: &Guest, line: &str) -> Outcome<String> {
    match line {
        "connected" => match guest.wait_phase(Phase::Connected, PATIENCE)? {
            true => Ok("connected".into()),
            false => Err("the frontend did not get to Connected".into()),
        },
        "hash" => guest.with(hash)?,
        "expect-hashes" => guest.with(expect_hashes)?,
        "no-hash" => guest.with(no_hash)?,
        "refusals" => guest.with(refusals)?,
        "add-grants" => guest.with(|netfront| grants(netfront, control::ADD_GREF_MAPPING))?,
        "delete-grants" => guest.with(|netfront| grants(netfront, control::DEL_GREF_MAPPING))?,
        "headroom" => guest.with(|netfront| headroom(netfront, 256))?,
        "no-headroom" => guest.with(|netfront| headroom(netfront, 0))?,
        "multicast-control" => guest.with(|netfront| multicast_control(netfront, true))?,
        "no-multicast-control" => guest.with(|netfront| multicast_control(netfront, false))?,
        "join" => guest.with(|netfront| multicast(netfront, MulticastChange::Add(GROUP)))?,
        "leave" => guest.with(|netfront| multicast(netfront, MulticastChange::Del(GROUP)))?,
        "account" => guest.with(account)?,
        other => {
            let Some(features) = other.strip_prefix("reload ") else {
                return Err(format!("there is no command '{other}'").into());
            };
            let features: Vec<String> = features.split(' ').map(str::to_owned).collect();
            guest.with(move |netfront| reload(netfront, &features))?
        }
    }
}

/// All seven hash messages. Packets may come without a hash until each queue has learnt of it.
fn hash(netfront: &mut Netfront) -> Outcome<String> {
    let ring = ring(netfront)?;
    // Without an algorithm there is nothing that it could do.
    let algorithm = ring.ask(control::SET_HASH_ALGORITHM, [TOEPLITZ, 0, 0], PATIENCE)?;
    answered("the algorithm", algorithm, 0)?;
    let (status, types) = ring.ask(control::GET_HASH_FLAGS, [0; 3], PATIENCE)?;
    expect("the status of the flags", status, 0)?;
    expect("the types of hash", types, ALL_TYPES.into())?;
    let flags = ring.ask(control::SET_HASH_FLAGS, [types, 0, 0], PATIENCE)?;
    answered("the flags", flags, 0)?;
    answered("the key", ring.set_key(&KEY, PATIENCE)?, 0)?;
    let (status, most) = ring.ask(control::GET_HASH_MAPPING_SIZE, [0; 3], PATIENCE)?;
    expect("the status of the table's size", status, 0)?;
    let size = ring.ask(control::SET_HASH_MAPPING_SIZE, [most, 0, 0], PATIENCE)?;
    answered("the table's size", size, 0)?;
    let table = vec![0; most as usize];
    answered("the table", ring.set_mapping(&table, 0, PATIENCE)?, 0)?;
    Ok(format!("hash types {types:#x}, a table of {most}"))
}

/// From now on every packet that is received must carry the right hash. To be said when a ping has been answered since
/// [`hash`], and so has found it in effect.
fn expect_hashes(netfront: &mut Netfront) -> Outcome<String> {
    // The host's kernel has things to say of itself, and what came before the hash has none.
    let earlier = std::iter::from_fn(|| netfront.receive()).count();
    netfront.expect_hash(Some(ExpectedHash {
        key: KEY.to_vec(),
        types: ALL_TYPES,
    }));
    Ok(format!("{earlier} packets had come before"))
}

fn no_hash(netfront: &mut Netfront) -> Outcome<String> {
    netfront.expect_hash(None);
    let answer = ring(netfront)?.ask(control::SET_HASH_ALGORITHM, [0; 3], PATIENCE)?;
    answered("the algorithm", answer, 0)?;
    Ok("no hash".into())
}

/// What a backend must refuse without harm to anybody: grants that are none, queues and messages that do not exist.
fn refusals(netfront: &mut Netfront) -> Outcome<String> {
    let [pages, _] = netfront
        .packet_pages(0)
        .ok_or("the frontend is not connected")?;
    let page = pages.first().ok_or("the queue has no pages")?;
    let ring = ring(netfront)?;
    let nobody = xen_ring::GrantRef::new(3);
    let no_grant = ring.change_grants(
        control::ADD_GREF_MAPPING,
        0,
        &[*page, (nobody, 0)],
        PATIENCE,
    )?;
    let no_queue = ring.ask(control::GET_GREF_MAPPING_SIZE, [7, 0, 0], PATIENCE)?;
    let no_message = ring.ask(77, [0; 3], PATIENCE)?;
    let no_key = ring.ask(control::SET_HASH_KEY, [nobody.raw(), 40, 0], PATIENCE)?;
    for (what, (status, _)) in [
        ("a grant that is none", no_grant),
        ("a queue that is none", no_queue),
        ("a message that is none", no_message),
        ("a key in a page that is none", no_key),
    ] {
        if status == 0 {
            return Err(format!("{what} was accepted").into());
        }
    }
    Ok("refused".into())
}

/// Has all pages of the queue mapped, or no longer.
fn grants(netfront: &mut Netfront, kind: u16) -> Outcome<String> {
    let all = netfront
        .packet_pages(0)
        .ok_or("the frontend is not connected")?;
    let ring = ring(netfront)?;
    let (status, room) = ring.ask(control::GET_GREF_MAPPING_SIZE, [0; 3], PATIENCE)?;
    expect("the status of the number of mappings", status, 0)?;
    let mut count = 0;
    for pages in all {
        let changed = match kind {
            control::DEL_GREF_MAPPING => u32::try_from(pages.len())?,
            _ => 0,
        };
        let answer = ring.change_grants(kind, 0, &pages, PATIENCE)?;
        answered("the grants", answer, changed)?;
        count += pages.len();
    }
    Ok(format!("{count} grants, room for {room}"))
}

fn headroom(netfront: &mut Netfront, bytes: u16) -> Outcome<String> {
    netfront.set_headroom(bytes, PATIENCE)?;
    Ok(format!("headroom {bytes}"))
}

/// From now on only multicast frames to addresses of the guest's list are to come, or all again.
fn multicast_control(netfront: &mut Netfront, wanted: bool) -> Outcome<String> {
    let value = if wanted { "1" } else { "0" };
    netfront
        .store()
        .set_raw("request-multicast-control", value)?;
    Ok(format!("request-multicast-control = {value}"))
}

fn multicast(netfront: &mut Netfront, change: MulticastChange) -> Outcome<String> {
    let answers = |netfront: &Netfront| {
        let stats = netfront.stats();
        (stats.tx_okay, stats.tx_error)
    };
    let (before, deadline) = (answers(netfront), Instant::now() + PATIENCE);
    let queue = netfront.tx_queue().ok_or("the frontend is not connected")?;
    queue.change_multicast(change)?;
    while answers(netfront) == before {
        if Instant::now() > deadline {
            return Err("the change of the list is not answered".into());
        }
        netfront.flush();
        std::thread::sleep(Duration::from_millis(1));
    }
    expect("errors", answers(netfront).1, before.1)?;
    Ok(format!("{change:?}"))
}

/// The driver goes and comes back with these features, and no others.
fn reload(netfront: &mut Netfront, features: &[String]) -> Outcome<String> {
    netfront.close(PATIENCE)?;
    let plain = FrontendOptions::plain();
    let options = features
        .iter()
        .try_fold(plain, |mut options, feature| -> Outcome<_> {
            match feature.as_str() {
                "plain" => {}
                "two-queues" => options.queues = 2,
                "control" => options.control_ring = true,
                "split" => options.split_event_channels = true,
                "sg" => options.sg = true,
                "csum" => (options.csum_offload, options.blank_tx) = (true, true),
                "csum6" => options.ipv6_csum_offload = true,
                "gso" => options.gso = true,
                "gso6" => options.gso_v6 = true,
                other => return Err(format!("there is no feature '{other}'").into()),
            }
            Ok(options)
        })?;
    *netfront.options_mut() = options;
    netfront.open(PATIENCE)?;
    Ok(format!("came back with {}", features.join(" ")))
}

/// Whether the backend has ever done what no correct backend does, and what it has done.
fn account(netfront: &mut Netfront) -> Outcome<String> {
    let stats = netfront.stats();
    expect("violations", stats.violations.count, 0)
        .map_err(|error| format!("{error}: {}", stats.violations.first.join("; ")))?;
    expect("tx errors", stats.tx_error + stats.tx_dropped, 0)?;
    expect("rx errors", stats.rx_errors, 0)?;
    Ok(format!(
        "{} slots sent, {} frames received, {} of them hashed, {} with headroom, {} to be segmented",
        stats.tx_okay, stats.rx_frames, stats.rx_hashed, stats.rx_xdp, stats.rx_gso
    ))
}

fn ring(netfront: &mut Netfront) -> Outcome<&mut Control> {
    Ok(netfront.control().ok_or("there is no control ring")?)
}

fn answered(what: &str, answer: Answer, data: u32) -> Outcome<()> {
    expect(what, answer.0, 0)?;
    expect(what, answer.1, data)
}

fn expect<T: PartialEq + Display>(what: &str, got: T, expected: T) -> Outcome<()> {
    if got == expected {
        return Ok(());
    }
    Err(format!("{what}: {got} instead of {expected}").into())
}
