use super::*;

const MAC: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 11]);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

#[test]
fn gratuitous_arp_has_both_forms() {
    let request = gratuitous_arp(MAC, [10, 1, 0, 254].into(), ArpOperation::Request);
    let expected = "ffffffffffff 00005e00010b 0806 0001 0800 06 04 0001
        00005e00010b 0a0100fe 000000000000 0a0100fe";
    assert_eq!(request.as_slice(), hex(expected));
    let reply = gratuitous_arp(MAC, [10, 1, 0, 254].into(), ArpOperation::Reply);
    let expected = "ffffffffffff 00005e00010b 0806 0001 0800 06 04 0002
        00005e00010b 0a0100fe ffffffffffff 0a0100fe";
    assert_eq!(reply.as_slice(), hex(expected));
}

/// The expected checksum was computed by an independent program.
#[test]
fn advertisements_are_from_a_router_and_override() {
    let frame = unsolicited_advertisement(
        MacAddr([0, 0, 0x5e, 0, 2, 11]),
        "fd00:1::fe".parse().unwrap(),
    );
    let expected = "333300000001 00005e00020b 86dd 60000000 0020 3a ff
        fd00 0001 0000 0000 0000 0000 0000 00fe ff02 0000 0000 0000 0000 0000 0000 0001
        88 00 7a94 a0000000 fd00 0001 0000 0000 0000 0000 0000 00fe 02 01 00005e00020b";
    assert_eq!(frame.as_slice(), hex(expected));
}

#[test]
fn what_is_built_is_understood() {
    let own: Ipv4Addr = [10, 1, 0, 1].into();
    let target: Ipv4Addr = [10, 1, 0, 100].into();
    let statement = |address: IpAddr, answer_for| {
        Some(Statement {
            address,
            mac: MAC,
            answer_for,
        })
    };
    let request = arp_request(MAC, own, target);
    assert_eq!(parse(&request), statement(own.into(), None));
    let reply = gratuitous_arp(MAC, own, ArpOperation::Reply);
    let broadcast = Some(MacAddr::BROADCAST);
    assert_eq!(parse(&reply), statement(own.into(), broadcast));

    let own: Ipv6Addr = "fe80::1".parse().unwrap();
    let target: Ipv6Addr = "fd00:1::12:3456".parse().unwrap();
    let question = solicitation(MAC, own, target);
    assert_eq!(question[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    assert_eq!(parse(&question), statement(own.into(), None));
    let advertisement = unsolicited_advertisement(MAC, target);
    assert_eq!(parse(&advertisement), statement(target.into(), None));
}

/// Goal: hostile frames neither panic nor count as statements. Method: every truncation, and every
/// byte of a valid frame changed.
#[test]
fn malformed_frames_are_ignored() {
    let arp = arp_request(MAC, [10, 1, 0, 1].into(), [10, 1, 0, 2].into());
    let question = solicitation(MAC, "fe80::1".parse().unwrap(), "fe80::2".parse().unwrap());
    for end in 0..arp.len() - 4 {
        assert_eq!(parse(&arp[..end]), None, "{end}");
    }
    for end in 0..78 {
        assert_eq!(parse(&question[..end]), None, "{end}");
    }
    for index in 0..question.len() {
        for value in 0..=u8::MAX {
            let mut changed = question;
            changed[index] = value;
            let parsed = parse(&changed);
            if (12..14).contains(&index) && value != question[index] {
                assert_eq!(parsed, None);
            }
        }
    }
    let mut routed = question;
    routed[21] = 254;
    assert_eq!(parse(&routed), None, "a router has passed it on");
}
