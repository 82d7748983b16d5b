//! `vnfpool token`.

use std::path::Path;
use std::time::Duration;

use vnfpool_northbound::TokenRequest;

use super::args::{TokenCommand, TokenCreate};
use super::output::Output;
use super::session::Session;

/// Runs a command of `vnfpool token`.
pub(super) fn run(command: &TokenCommand, admin: &Path, output: &mut Output) -> anyhow::Result<()> {
    match command {
        TokenCommand::Create(args) => create(args, admin, output),
    }
}

/// Prints the token alone on a line, so that a script can take it.
fn create(args: &TokenCreate, admin: &Path, output: &mut Output) -> anyhow::Result<()> {
    let session = Session::open(admin)?;
    let request = TokenRequest {
        pool: args.pool.clone(),
        element: args.element.clone(),
        ttl_s: args.ttl.as_secs(),
    };
    let token = session.wait(session.client.create_token(&request))?;
    if args.output.json {
        return output.json(&token);
    }
    output.line(&token.token)
}

/// Parses a time to live: a whole number with `s`, `m`, `h` or `d`.
pub(super) fn parse_ttl(text: &str) -> Result<Duration, String> {
    let expected = || format!("'{text}' is no time: write a number with s, m, h or d, like 15m");
    let unit = text.chars().last().ok_or_else(expected)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(expected()),
    };
    let number: u64 = text
        .strip_suffix(unit)
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(expected)?;
    let ttl = number.checked_mul(seconds).ok_or_else(expected)?;
    if ttl == 0 || ttl > TTL_SECONDS_MAX {
        return Err("a token lives between 1s and 30d".to_owned());
    }
    Ok(Duration::from_secs(ttl))
}

/// A token that is not used within a month is a leak waiting to happen.
const TTL_SECONDS_MAX: u64 = 30 * 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_are_parsed() {
        assert_eq!(parse_ttl("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_ttl("1h"), Ok(Duration::from_secs(3_600)));
        assert_eq!(parse_ttl("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for bad in [
            "",
            "h",
            "1",
            "-1h",
            "1.5h",
            "0s",
            "31d",
            "99999999999999999999d",
            "1ä",
        ] {
            assert!(parse_ttl(bad).is_err(), "{bad}");
        }
    }
}
