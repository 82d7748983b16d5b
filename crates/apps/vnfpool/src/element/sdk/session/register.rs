//! The first message of a connection.

use std::collections::BTreeSet;

use vnfpool_model::Time;
use vnfpool_statesync::class::ClassName;
use vnfpool_wire::sdk::reply::Kind as ReplyKind;
use vnfpool_wire::sdk::{
    self, CLASSES_MAX, Health, Level, LevelKind, NAME_BYTES_MAX, Register, Registered,
};

use super::{Fatal, Session};
use crate::element::sdk::function::Report;
use crate::element::sdk::{ClassSpec, Hub};

/// What may be under way from a function without being answered.
const IN_FLIGHT_BYTES_MAX: u32 = 1024 * 1024;

/// How long a level waits for its successor if it does not say.
const LAG_MS_DEFAULT: u32 = 1_000;

/// How many changes may be missing if a level does not say.
const ENTRIES_DEFAULT: u32 = 16_384;

impl Session {
    pub(super) fn register(&mut self, register: Register, now: Time) -> Result<(), Fatal> {
        if register.version != sdk::VERSION {
            let text = format!(
                "the function speaks version {}, this agent version {}: upgrade the older one",
                register.version,
                sdk::VERSION
            );
            return Err(Fatal::new("version", text));
        }
        check_name("the function's name", &register.function)?;
        let specs = class_specs(&register)?;
        self.hub.register(&register, &specs, now)?;
        // What a former function could not say of its state, this one says.
        let slots: Vec<_> = self.hub.state().inherited.iter().copied().collect();
        for slot in slots {
            self.hub.health.needs_no_state(slot);
        }
        self.classes = Some(specs.into_iter().map(|spec| spec.name).collect());
        self.has_state = register.has_state;
        self.send(ReplyKind::Registered(Registered {
            version: sdk::VERSION,
            element: self.hub.element.clone(),
            pool: self.hub.pool.clone(),
            in_flight_bytes_max: IN_FLIGHT_BYTES_MAX,
        }));
        Ok(())
    }
}

impl Hub {
    /// Takes the function in, if there is none and its classes fit what is held of them.
    fn register(&self, register: &Register, specs: &[ClassSpec], now: Time) -> Result<(), Fatal> {
        let mut state = self.state();
        if self.health.report().is_some() {
            let text = "another function is registered with this agent: end that one first";
            return Err(Fatal::new("taken", text));
        }
        for (slot, classes) in &state.classes {
            for spec in specs {
                let Some(class) = classes.get(&spec.name) else {
                    continue;
                };
                let class = class.state();
                let format = class.spec().map(|known| known.format);
                if class.table.entries() > 0 && format.is_some_and(|known| known != spec.format) {
                    let text = format!(
                        "the class '{}' of slot {slot} holds entries of another format: give the \
                         class another name",
                        spec.name
                    );
                    return Err(Fatal::new("format", text));
                }
            }
        }
        state.specs = specs.to_vec();
        state.has_new_specs = true;
        let gone = state.leave_out_others(now);
        state.create_classes(&self.bell, now);
        let report = report(register.health.clone().unwrap_or_default());
        self.health.registered(&register.function, report);
        drop(state);
        drop(gone);
        tracing::info!(
            function = register.function,
            version = register.function_version,
            classes = specs.len(),
            "a function has registered"
        );
        Ok(())
    }

    /// The function is gone. Its state stays, for the next one.
    pub(super) fn unregister(&self) {
        self.health.has_gone();
        tracing::warn!("the function has closed its connection");
    }
}

pub(super) fn report(health: Health) -> Report {
    let mut reason = health.reason;
    // It goes into reports of bounded size, and to the operator's screen.
    reason.retain(|c| !c.is_control());
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    Report {
        is_healthy: health.healthy,
        reason,
        load: health.load,
        capacity: health.capacity,
    }
}

fn class_specs(register: &Register) -> Result<Vec<ClassSpec>, Fatal> {
    if register.classes.len() > CLASSES_MAX {
        let text = format!("more than {CLASSES_MAX} classes: put what changes together into one");
        return Err(Fatal::new("classes", text));
    }
    let mut names = BTreeSet::new();
    let mut specs = Vec::new();
    for class in &register.classes {
        let name = ClassName::new(&class.name);
        let name = name.map_err(|error| {
            Fatal::new(
                "classes",
                format!("the class '{}': {error}", shown(&class.name)),
            )
        })?;
        if name == ClassName::conntrack() {
            let text = format!("the class '{name}' is the kernel's: give yours another name");
            return Err(Fatal::new("classes", text));
        }
        let (Ok(format), Ok(schema_version)) = (
            u16::try_from(class.format),
            u16::try_from(class.schema_version),
        ) else {
            let text = format!(
                "the class '{}': format and schema are at most 65535",
                class.name
            );
            return Err(Fatal::new("classes", text));
        };
        if !names.insert(&class.name) {
            let text = format!(
                "the class '{}' is there twice: give it another name",
                class.name
            );
            return Err(Fatal::new("classes", text));
        }
        specs.push(ClassSpec {
            name,
            level: with_defaults(class.level.unwrap_or_default()),
            format,
            schema_version,
        });
    }
    Ok(specs)
}

/// A level with its bounds; a kind that is not known here counts as the strictest.
fn with_defaults(level: Level) -> Level {
    let kind = LevelKind::try_from(level.kind).unwrap_or(LevelKind::LevelCommit);
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    match kind {
        LevelKind::LevelNone | LevelKind::LevelEventual => Level {
            kind: kind.into(),
            ..Level::default()
        },
        LevelKind::LevelBounded | LevelKind::LevelCommit => Level {
            kind: kind.into(),
            lag_ms: or(level.lag_ms, LAG_MS_DEFAULT),
            entries: or(level.entries, ENTRIES_DEFAULT),
        },
    }
}

fn check_name(what: &str, name: &str) -> Result<(), Fatal> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(());
    }
    let text = format!(
        "{what}: expected 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, '-', '_', '.' and '/', found \
         \"{}\"",
        shown(name)
    );
    Err(Fatal::new("classes", text))
}

/// As much of a text as an error can show.
fn shown(text: &str) -> String {
    text.chars()
        .take(NAME_BYTES_MAX)
        .flat_map(char::escape_debug)
        .collect()
}

/// Longest reason for being unhealthy that is kept.
const REASON_BYTES_MAX: usize = 256;
