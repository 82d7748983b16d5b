//! A verdict map of the operator's nftables ruleset, of which the agent keeps the one verdict.
//!
//! ```text
//! map vnfpool_main { type nf_proto : verdict }      # what is here: { ipv4 : goto vnfpool_main_3,
//! chain vnfpool_main_3 { … snat ip to … }           #                 ipv6 : goto vnfpool_main_3 }
//! ```

use std::io;

use crate::health::TableFamily;
use crate::netlink::{self, ACK, Body, CREATE, DUMP};

/// A map of the ruleset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictMap {
    /// The family of its table.
    pub family: TableFamily,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
}

/// A map cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatMapError {
    /// It cannot be read.
    #[error(
        "there is no map '{map}' in the nftables table '{table}': add \
         `map {map} {{ type nf_proto : verdict; }}` to the ruleset"
    )]
    Missing {
        /// The table.
        table: String,
        /// The map.
        map: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The verdict cannot be written.
    #[error(
        "the nftables map '{map}' does not take `goto {chain}`: it has to be \
         `type nf_proto : verdict`, and the chain '{chain}' has to be in its table '{table}'"
    )]
    Refused {
        /// The table.
        table: String,
        /// The map.
        map: String,
        /// The chain.
        chain: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
}

impl VerdictMap {
    /// Lets every packet go to `chain` from now on, in one transaction: there is no moment
    /// without a verdict.
    ///
    /// # Errors
    /// [`NatMapError::Refused`]; the map is as it was then.
    pub fn go_to(&self, chain: &str) -> Result<(), NatMapError> {
        let elements = KEYS.iter().fold(Body::new(&[]), |elements, key| {
            let verdict = Body::new(&[])
                .attribute(NFTA_VERDICT_CODE, &NFT_GOTO.to_be_bytes())
                .text(NFTA_VERDICT_CHAIN, chain);
            let data = Body::new(&[]).nested(NESTED | NFTA_DATA_VERDICT, verdict);
            let key = Body::new(&[]).attribute(NFTA_DATA_VALUE, &[*key]);
            let element = Body::new(&[])
                .nested(NESTED | NFTA_SET_ELEM_KEY, key)
                .nested(NESTED | NFTA_SET_ELEM_DATA, data);
            elements.nested(NESTED | NFTA_LIST_ELEM, element)
        });
        let add = self
            .body()
            .nested(NESTED | NFTA_SET_ELEM_LIST_ELEMENTS, elements);
        let batch = [
            // Without elements it is all of them.
            (kind(NFT_MSG_DELSETELEM), 0, self.body()),
            (kind(NFT_MSG_NEWSETELEM), CREATE, add),
        ];
        netlink::nftables_batch(&batch).map_err(|source| NatMapError::Refused {
            table: self.table.clone(),
            map: self.name.clone(),
            chain: chain.to_owned(),
            source,
        })
    }

    /// The chain that packets of both families go to; none if the map is empty, or has anything
    /// else.
    ///
    /// # Errors
    /// [`NatMapError::Missing`].
    pub fn goes_to(&self) -> Result<Option<String>, NatMapError> {
        let answers = netlink::request(
            netlink::NETFILTER,
            kind(NFT_MSG_GETSETELEM),
            DUMP,
            &self.body(),
        );
        let answers = answers.map_err(|source| NatMapError::Missing {
            table: self.table.clone(),
            map: self.name.clone(),
            source,
        })?;
        let mut found = KEYS.map(|_| None);
        for answer in &answers {
            for (attribute, elements) in netlink::attributes(&answer.body, HEADER_BYTES) {
                if attribute != NFTA_SET_ELEM_LIST_ELEMENTS {
                    continue;
                }
                for (_, element) in netlink::attributes(elements, 0) {
                    let Some((key, chain)) = verdict(element) else {
                        return Ok(None);
                    };
                    match KEYS.iter().position(|known| *known == key) {
                        Some(at) => found[at] = Some(chain),
                        None => return Ok(None),
                    }
                }
            }
        }
        let [v4, v6] = found;
        Ok(v4.filter(|chain| Some(chain) == v6.as_ref()))
    }

    fn body(&self) -> Body {
        Body::new(&[self.family.number(), 0, 0, 0])
            .text(NFTA_SET_ELEM_LIST_TABLE, &self.table)
            .text(NFTA_SET_ELEM_LIST_SET, &self.name)
    }
}

/// The number of the ruleset's generation in this namespace: another one whenever anybody has
/// changed anything.
///
/// # Errors
/// The kernel does not answer.
pub fn generation() -> io::Result<u32> {
    let body = Body::new(&[0; HEADER_BYTES]);
    let answers = netlink::request(netlink::NETFILTER, kind(NFT_MSG_GETGEN), ACK, &body)?;
    let mut attributes = answers
        .iter()
        .flat_map(|answer| netlink::attributes(&answer.body, HEADER_BYTES));
    let id = attributes.find(|(attribute, _)| *attribute == NFTA_GEN_ID);
    let id = id.and_then(|(_, value)| value.first_chunk());
    id.map(|id| u32::from_be_bytes(*id))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Key and chain of an element that goes to one.
fn verdict(element: &[u8]) -> Option<(u8, String)> {
    let part = |of, wanted| {
        let mut parts = netlink::attributes(of, 0);
        parts.find(|(attribute, _)| *attribute == wanted)
    };
    let (_, key) = part(element, NFTA_SET_ELEM_KEY)?;
    let (_, key) = part(key, NFTA_DATA_VALUE)?;
    let (_, data) = part(element, NFTA_SET_ELEM_DATA)?;
    let (_, verdict) = part(data, NFTA_DATA_VERDICT)?;
    let (_, code) = part(verdict, NFTA_VERDICT_CODE)?;
    let (_, chain) = part(verdict, NFTA_VERDICT_CHAIN)?;
    if i32::from_be_bytes(*code.first_chunk()?) != NFT_GOTO {
        return None;
    }
    let chain = chain.strip_suffix(&[0]).unwrap_or(chain);
    Some((*key.first()?, String::from_utf8(chain.to_vec()).ok()?))
}

const fn kind(message: u16) -> u16 {
    netlink::NFNL_SUBSYS_NFTABLES << 8 | message
}

/// `NFPROTO_IPV4` and `NFPROTO_IPV6`.
const KEYS: [u8; 2] = [2, 10];

/// `struct nfgenmsg`.
const HEADER_BYTES: usize = 4;

// linux/netfilter/nf_tables.h
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_GEN_ID: u16 = 1;
const NFT_GOTO: i32 = -4;
const NESTED: u16 = 0x8000;
