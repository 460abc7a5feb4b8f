//! The examples of RFC 7541, appendix C, and what losses leave.

use super::*;

/// Bytes written as in the RFC: groups of hexadecimal digits.
fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn show(text: Text<'_>) -> String {
    match text {
        Text::Known(text) => String::from_utf8_lossy(text).into_owned(),
        Text::Unwanted => "-".into(),
        Text::Unknown => "?".into(),
    }
}

fn decode(decoder: &mut Decoder, block: &str) -> Result<Vec<String>, Malformed> {
    let block = bytes(block);
    let mut fields = Vec::new();
    let used = decoder.decode(&block, true, true, &mut |field| {
        fields.push(format!("{}: {}", show(field.name), show(field.value)));
    })?;
    assert_eq!(used, block.len());
    Ok(fields)
}

/// The entries of the table, newest first.
fn table(decoder: &Decoder) -> Vec<String> {
    let entries = (0..).map_while(|index| decoder.table.get(index));
    entries.map(|found| format!("{}: {}", show(found.name), show(found.value))).collect()
}

fn fresh() -> Decoder {
    Decoder::fresh(|_| true)
}

fn expect(decoder: &mut Decoder, block: &str, fields: &[&str], entries: &[&str], size: u64) {
    assert_eq!(decode(decoder, block).unwrap(), fields);
    assert_eq!(table(decoder), entries);
    assert_eq!(decoder.table.size, size);
}

#[test]
fn c1_integers() {
    let read = |prefix, text: &str| {
        let bytes = bytes(text);
        let mut reader = Reader { bytes: &bytes, at: 0 };
        reader.integer(prefix).ok().map(|n| (n, reader.at))
    };
    assert_eq!(read(5, "0a"), Some((10, 1)));
    assert_eq!(read(5, "1f 9a 0a"), Some((1337, 3)));
    assert_eq!(read(8, "2a"), Some((42, 1)));
    assert_eq!(read(5, "1f 9a"), None);
    assert_eq!(read(7, "7f 80 80 80 80 80"), None);
    assert_eq!(read(7, "7f ff ff ff ff 7f"), None);
    assert_eq!(read(7, "7f 80 ff ff ff 0f"), Some((u32::MAX, 6)));
}

#[test]
fn c2_representations() {
    expect(
        &mut fresh(),
        "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
        &["custom-key: custom-header"],
        &["custom-key: custom-header"],
        55,
    );
    expect(&mut fresh(), "040c 2f73 616d 706c 652f 7061 7468", &[":path: /sample/path"], &[], 0);
    expect(&mut fresh(), "1008 7061 7373 776f 7264 0673 6563 7265 74", &["password: secret"], &[], 0);
    expect(&mut fresh(), "82", &[":method: GET"], &[], 0);
}

const FIRST: &[&str] = &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com"];
const SECOND: &[&str] =
    &[":method: GET", ":scheme: http", ":path: /", ":authority: www.example.com", "cache-control: no-cache"];
const THIRD: &[&str] = &[
    ":method: GET",
    ":scheme: https",
    ":path: /index.html",
    ":authority: www.example.com",
    "custom-key: custom-value",
];

fn requests(blocks: [&str; 3]) {
    let mut decoder = fresh();
    let entries = ["custom-key: custom-value", "cache-control: no-cache", ":authority: www.example.com"];
    expect(&mut decoder, blocks[0], FIRST, &entries[2..], 57);
    expect(&mut decoder, blocks[1], SECOND, &entries[1..], 110);
    expect(&mut decoder, blocks[2], THIRD, &entries, 164);
}

#[test]
fn c3_requests_without_huffman() {
    requests([
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ]);
}

#[test]
fn c4_requests_with_huffman() {
    requests([
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ]);
}

fn responses(blocks: [&str; 3]) {
    let mut decoder = fresh();
    decoder.table.resize(256);
    let date = "date: Mon, 21 Oct 2013 20:13:21 GMT";
    let later = "date: Mon, 21 Oct 2013 20:13:22 GMT";
    let location = "location: https://www.example.com";
    let first = [":status: 302", "cache-control: private", date, location];
    expect(&mut decoder, blocks[0], &first, &[location, date, first[1], first[0]], 222);
    let second = [":status: 307", "cache-control: private", date, location];
    expect(&mut decoder, blocks[1], &second, &[second[0], location, date, first[1]], 222);
    let cookie = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    let third = [":status: 200", "cache-control: private", later, location, "content-encoding: gzip", cookie];
    expect(&mut decoder, blocks[2], &third, &[cookie, third[4], later], 215);
}

#[test]
fn c5_responses_without_huffman() {
    responses([
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d
         546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f
         6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b
         2076 6572 7369 6f6e 3d31",
    ]);
}

#[test]
fn c6_responses_with_huffman() {
    responses([
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7
         8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335
         dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
    ]);
}

#[test]
fn broken_blocks() {
    for bad in ["80", "be", "40 00", "82 20", "ff ff ff ff ff 0f", "00 01", "41 8c f1", "41 81 00", "c0"] {
        assert_eq!(decode(&mut fresh(), bad), Err(Malformed), "{bad}");
    }
    // An update of the size is for the beginning.
    assert_eq!(decode(&mut fresh(), "20 3f e1 1f 82").unwrap(), [":method: GET"]);
}

#[test]
fn after_a_loss_only_what_is_newer_is_known() {
    let mut decoder = fresh();
    decode(&mut decoder, "41 01 61").unwrap();
    decoder.lose();
    assert_eq!(decode(&mut decoder, "82 be").unwrap(), [":method: GET", "?: ?"]);
    // A name that is not known with a value that is, inserted.
    assert_eq!(decode(&mut decoder, "7e 01 62").unwrap(), ["?: b"]);
    assert_eq!(decode(&mut decoder, "41 01 63").unwrap(), [":authority: c"]);
    assert_eq!(decode(&mut decoder, "be bf c0").unwrap(), [":authority: c", "?: b", "?: ?"]);
    // The encoder empties its table: there is nothing unknown any more.
    assert_eq!(decode(&mut decoder, "20 3f e1 1f 41 01 64").unwrap(), [":authority: d"]);
    assert_eq!(decode(&mut decoder, "bf"), Err(Malformed));
}

#[test]
fn unwanted_fields_are_not_kept() {
    let mut decoder = Decoder::fresh(|name| name == b":authority");
    assert_eq!(decode(&mut decoder, "41 01 61 60 01 62").unwrap(), [":authority: a", "-: -"]);
    assert_eq!(decoder.table.bytes, 11);
    assert_eq!(decoder.table.size, 43 + 39);
    // Its name is used once more, and counts.
    assert_eq!(decode(&mut decoder, "7e 01 63").unwrap(), ["-: -"]);
    assert_eq!(decoder.table.size, 43 + 2 * 39);
    assert_eq!(decode(&mut decoder, "be bf c0").unwrap(), ["-: -", "-: -", ":authority: a"]);
}

#[test]
fn memory_is_bounded_whatever_size_is_set() {
    let mut decoder = fresh();
    decode(&mut decoder, "3f e1 ff ff 7f").unwrap();
    for n in 0..40_000u32 {
        let value = format!("{n:0200}");
        // The length takes two bytes: 127, and the rest.
        let block = [&[0x41, 0x7f, 200 - 127][..], value.as_bytes()].concat();
        decoder.decode(&block, true, true, &mut |_| {}).unwrap();
        assert!(decoder.state_bytes() <= Decoder::MAX_STATE);
    }
    assert_eq!(decode(&mut decoder, "be").unwrap(), [format!(":authority: {:0200}", 39_999)]);
    // What had to be forgotten is unknown, not wrong.
    assert_eq!(decode(&mut decoder, "ff 80 10").unwrap(), ["?: ?"]);
}

#[test]
fn blocks_may_come_in_pieces() {
    let whole = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
    for cut in 0..whole.len() {
        let mut decoder = fresh();
        let mut fields = 0;
        let used = decoder.decode(&whole[..cut], true, false, &mut |_| fields += 1).unwrap();
        decoder.decode(&whole[used..], used == 0, true, &mut |_| fields += 1).unwrap();
        assert_eq!(fields, 4, "{cut}");
        assert_eq!(table(&decoder), [":authority: www.example.com"]);
    }
}
