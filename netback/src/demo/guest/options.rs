// SPDX-License-Identifier: GPL-3.0-or-later
//! How a model frontend behaves: what it negotiates, and how it cuts its packets.

/// Choices of a frontend. The default is what Linux's netfront does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendOptions {
    /// Queue pairs, as far as the backend offers so many.
    pub queues: u16,
    /// Two event channels, one for each ring, where the backend offers that; otherwise one for both.
    pub split_event_channels: bool,
    /// `feature-sg`: frames of many slots may come. (Sending them depends on what the backend offers.)
    pub sg: bool,
    /// IPv4 checksums may come blank; if not, `feature-no-csum-offload` is written.
    pub csum_offload: bool,
    /// TCP segmentation offload over IPv4: `feature-gso-tcpv4` for what comes, and large frames sent where the
    /// backend takes them. Needs `sg` and `csum_offload`.
    pub gso: bool,
    /// The same over IPv6: `feature-gso-tcpv6`. Needs `sg` and `ipv6_csum_offload`.
    pub gso_v6: bool,
    /// `feature-ipv6-csum-offload`: IPv6 checksums may come blank.
    pub ipv6_csum_offload: bool,
    /// `feature-rx-notify`: the guest signals when it posts buffers.
    pub rx_notify: bool,
    /// `request-rx-copy`, without which an old frontend would flip pages.
    pub rx_copy: bool,
    /// A control ring, where the backend offers one. Linux's netfront has none.
    pub control_ring: bool,
    /// Leave TCP and UDP checksums blank when sending.
    pub blank_tx: bool,
    /// Most bytes in one tx slot: small values make frames of many slots. At most a page.
    pub tx_slot_bytes: u16,
    /// Where in its page a tx slot's data begins.
    pub tx_offset: u16,
    /// Rx buffers to keep posted, at most the ring's 256.
    pub rx_buffers: usize,
    /// Index at which both rings start: 0 in real guests; near the end of u32 to see the wrap.
    pub start_index: u32,
    /// Grant tx pages for reading only, as a careful guest does.
    pub tx_readonly: bool,
    /// Extra keys for the frontend's directory, written last: for saying what is not so.
    pub overrides: Vec<(String, Option<String>)>,
}

impl Default for FrontendOptions {
    fn default() -> Self {
        Self {
            queues: 1,
            split_event_channels: true,
            sg: true,
            csum_offload: true,
            gso: true,
            gso_v6: true,
            ipv6_csum_offload: true,
            rx_notify: true,
            rx_copy: true,
            control_ring: false,
            blank_tx: true,
            tx_slot_bytes: 4096,
            tx_offset: 0,
            rx_buffers: 256,
            start_index: 0,
            tx_readonly: true,
            overrides: Vec::new(),
        }
    }
}

impl FrontendOptions {
    /// Largest frame that is left to the backend to segment, if any, over IPv4 and over IPv6: what 17 slots hold, one
    /// less than every backend takes, and 64 KiB at most.
    #[must_use]
    pub fn largest_gso(&self) -> [Option<usize>; 2] {
        let slot =
            usize::from(self.tx_slot_bytes).min(4096_usize.saturating_sub(self.tx_offset.into()));
        let most = (17 * slot).min(65_535);
        let sent = self.sg && self.blank_tx && most > 4096;
        [self.gso, self.gso_v6].map(|gso| (gso && sent).then_some(most))
    }

    /// A frontend that knows nothing beyond the bare protocol: one slot per frame, whole checksums, one channel.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            split_event_channels: false,
            sg: false,
            csum_offload: false,
            gso: false,
            gso_v6: false,
            ipv6_csum_offload: false,
            blank_tx: false,
            ..Self::default()
        }
    }
}
