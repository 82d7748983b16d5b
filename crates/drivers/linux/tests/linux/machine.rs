//! What is told of the addresses of this machine.

use std::collections::HashSet;
use std::net::IpAddr;

use vnfpool_linux::address_watch::AddressWatch;
use vnfpool_linux::{VirtualDevice, links};

use crate::netns::{self, Lab};
use crate::vrid;

const OWNER: &str = "vnfpool test";

/// Goal: all addresses of the machine are known at any moment, on whatever interface, and a virtual
/// one never is among them; while nothing changes nothing is told. Method: addresses and virtual
/// devices that come and go between the questions.
#[test]
fn the_addresses_are_those_of_the_moment_without_the_virtual_ones() {
    let lab = Lab::new(1);
    let of = |text: &str| text.parse::<IpAddr>().unwrap();
    let [management, added]: [IpAddr; 2] = ["10.77.0.2", "fd00:77::2"].map(of);
    let taken = of(netns::INSIDE_V4);
    lab.within("gw1", || {
        let mut watch = AddressWatch::open(OWNER).unwrap();
        let first = watch.news().unwrap().unwrap();
        let at_first: HashSet<IpAddr> = ["127.0.0.1", "10.1.0.1", "fd00:2::1"].map(of).into();
        assert!(first.is_superset(&at_first), "{first:?}");
        assert_eq!(watch.news().unwrap(), None);

        lab.ip("gw1", "link add management type bridge");
        lab.ip("gw1", "link set management up");
        lab.ip(
            "gw1",
            &format!("address add {management}/24 dev management"),
        );
        lab.ip(
            "gw1",
            &format!("address add {added}/64 dev management nodad"),
        );
        let second = watch.news().unwrap().unwrap();
        assert!(second.contains(&management) && second.contains(&added));

        let parent = links::find("in").unwrap();
        let mut device = VirtualDevice::prepare(&parent, vrid(), taken).unwrap();
        device.mark(OWNER).unwrap();
        device.configure(&[taken]).unwrap();
        let third = watch.news().unwrap().unwrap();
        assert!(!third.contains(&taken), "{third:?}");
        // Nor is it one when somebody has it on another interface as well.
        lab.ip("gw1", &format!("address add {taken}/32 dev lo"));
        let fourth = watch.news().unwrap().unwrap();
        assert!(!fourth.contains(&taken), "{fourth:?}");

        lab.ip("gw1", "link del management");
        let last = watch.news().unwrap().unwrap();
        assert!(!last.contains(&management) && !last.contains(&added));
        assert_eq!(watch.news().unwrap(), None);
        device.remove().unwrap();
    });
}
