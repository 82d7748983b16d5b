//! The guide shows what compiles.

const GUIDE: &str = include_str!("../../docs/sdk.md");
const EXAMPLE: &str = include_str!("../examples/counter.rs");

#[test]
fn the_guides_example_is_the_one_that_is_compiled() {
    let begin = EXAMPLE.find("use vnfpool_sdk").expect("it uses the crate");
    let code = &EXAMPLE[begin..];
    assert!(
        GUIDE.contains(code),
        "copy sdk/examples/counter.rs into docs/sdk.md"
    );
}
