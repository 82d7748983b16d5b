//! The guide shows what compiles.

const GUIDE: &str = include_str!("../../docs/sdk.md");
const EXAMPLES: [&str; 2] = [
    include_str!("../examples/counter.rs"),
    include_str!("../examples/sessions.rs"),
];

/// The Rust code that the guide shows, block by block.
fn blocks() -> Vec<&'static str> {
    let behind = GUIDE.split("```rust\n").skip(1);
    let blocks = behind.map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.collect()
}

#[test]
fn the_guides_code_is_compiled() {
    for block in blocks() {
        assert!(
            EXAMPLES.iter().any(|example| example.contains(block)),
            "this is in docs/sdk.md and in none of sdk/examples/:\n{block}"
        );
    }
}

#[test]
fn the_guide_shows_a_whole_function() {
    let [counter, _] = EXAMPLES;
    let begin = counter.find("use vnfpool_sdk").expect("it uses the crate");
    assert!(
        blocks().contains(&&counter[begin..]),
        "copy sdk/examples/counter.rs into docs/sdk.md"
    );
}
