//! The wire does not move: the `.proto` files, the fact table `wire.txt` beside this file, and Kata's own description
//! of its API (`../shared/kata-agent-api.json`, where it is at hand) say the same, message by message.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyperstart_protocol::{FRAME_HEADER, MAX_FRAME, PROTOCOL_MAJOR, READY_LINE};
use hyperstart_protocol::{agent, agent_ttrpc, guest_ttrpc, health_ttrpc, oci, types};
use protobuf::descriptor::field_descriptor_proto::{Label, Type};
use protobuf::descriptor::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
};
use protobuf::{Message as _, MessageField};
use serde_json::Value;

type Facts = BTreeSet<String>;

/// Every file of `proto/`, compiled or not.
#[test]
fn the_proto_files_say_what_the_table_says() {
    assert_same(&proto_facts(), &table_facts(), "proto/*.proto", "tests/wire.txt");
}

/// The table is complete, and Kata's.
#[test]
fn the_table_says_what_kata_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/kata-agent-api.json");
    let Ok(text) = fs::read_to_string(&path) else {
        println!(
            "SKIPPED: {path:?} is not here; the table was compared with it when it was written"
        );
        return;
    };
    let table = table_facts().into_iter().filter(|fact| !is_ours(fact)).collect();
    assert_same(
        &table,
        &json_facts(&serde_json::from_str(&text).unwrap()),
        "tests/wire.txt",
        "Kata",
    );
}

/// What we add to Kata's files: a service of our own, and the extensions of the OCI spec.
fn is_ours(fact: &str) -> bool {
    let number = fact.split(' ').nth(2).and_then(|number| number.parse().ok());
    let is_extension =
        fact.starts_with("field ") && number.is_some_and(|number: u32| number >= 1000);
    is_extension || fact.contains("hyperstart") || fact.contains("grpc.Extensions")
}

/// Services and methods as a ttrpc server registers them, which is what requests name.
#[test]
fn services_have_their_names_on_the_wire() {
    struct Nothing;
    impl agent_ttrpc::AgentService for Nothing {}
    impl health_ttrpc::Health for Nothing {}
    impl guest_ttrpc::Guest for Nothing {}

    let mut services = agent_ttrpc::create_agent_service(Arc::new(Nothing));
    services.extend(health_ttrpc::create_health(Arc::new(Nothing)));
    services.extend(guest_ttrpc::create_guest(Arc::new(Nothing)));
    let registered: Facts = services
        .iter()
        .flat_map(|(name, service)| service.methods.keys().map(move |method| (name, method)))
        .map(|(service, method)| format!("{service} {method}"))
        .collect();
    let served = ["grpc.AgentService", "grpc.Health", "hyperstart.v1.Guest"];
    let described: Facts = table_facts()
        .iter()
        .filter_map(|fact| fact.strip_prefix("rpc "))
        .filter(|rpc| served.iter().any(|service| rpc.starts_with(&format!("{service} "))))
        .map(|rpc| rpc.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(registered, described);
    assert_eq!(registered.len(), 42 + 2 + 13);
}

/// Limits that two sides keep are ttrpc's own, and the ready line names the version.
#[test]
fn constants_agree_with_each_other() {
    assert_eq!(MAX_FRAME, ttrpc::proto::MESSAGE_LENGTH_MAX);
    assert_eq!(FRAME_HEADER, ttrpc::proto::MESSAGE_HEADER_LENGTH);
    assert_eq!(READY_LINE, format!("HYPERSTART READY {PROTOCOL_MAJOR}\n"));
}

/// The generated code puts numbers and types on the wire as described: a few messages, byte for byte.
#[test]
fn messages_have_their_bytes() {
    let seed = agent::ReseedRandomDevRequest { data: vec![7], ..Default::default() };
    assert_eq!(seed.write_to_bytes().unwrap(), [0x12, 1, 7]);

    let group = agent::FSGroup {
        group_id: 300,
        group_change_policy: types::FSGroupChangePolicy::OnRootMismatch.into(),
        ..Default::default()
    };
    assert_eq!(group.write_to_bytes().unwrap(), [0x10, 0xac, 2, 0x18, 1]);

    // Presence: a oneof and a proto3 optional are written even when they are zero.
    let mut syscall = oci::LinuxSyscall::new();
    syscall.set_errnoret(0);
    assert_eq!(syscall.write_to_bytes().unwrap(), [0x18, 0]);
    let tuning = agent::MemAgentMemcgConfig { swap: Some(false), ..Default::default() };
    assert_eq!(tuning.write_to_bytes().unwrap(), [0x10, 0]);

    let status = agent::WaitProcessResponse { status: -1, ..Default::default() };
    let minus_one = [0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
    assert_eq!(status.write_to_bytes().unwrap(), minus_one);

    let create = agent::CreateContainerRequest {
        container_id: "c".to_owned(),
        OCI: MessageField::some(oci::Spec { Hostname: "h".to_owned(), ..Default::default() }),
        stderr_port: 9,
        ..Default::default()
    };
    let bytes = [0x0a, 1, b'c', 0x32, 3, 0x22, 1, b'h', 0x58, 9];
    assert_eq!(create.write_to_bytes().unwrap(), bytes);
}

fn assert_same(left: &Facts, right: &Facts, left_name: &str, right_name: &str) {
    let lines = |facts: BTreeSet<&String>| facts.into_iter().map(|f| format!("\n  {f}")).collect();
    let only_left: String = lines(left.difference(right).collect());
    let only_right: String = lines(right.difference(left).collect());
    assert!(
        only_left.is_empty() && only_right.is_empty(),
        "only in {left_name}:{only_left}\nonly in {right_name}:{only_right}"
    );
    assert!(!left.is_empty());
}

fn table_facts() -> Facts {
    let facts = include_str!("wire.txt").lines().filter(|line| !line.starts_with('#'));
    facts.map(str::to_owned).collect()
}

// From the .proto files.

fn proto_facts() -> Facts {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let parsed = protobuf_parse::Parser::new()
        .pure()
        .include(&root)
        .inputs(proto_files(&root))
        .parse_and_typecheck()
        .unwrap();
    let mut facts = Facts::new();
    for file in &parsed.file_descriptors {
        file_facts(file, &mut facts);
    }
    facts
}

fn proto_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(proto_files(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn file_facts(file: &FileDescriptorProto, facts: &mut Facts) {
    let package = file.package();
    let imports = file.dependency.iter().map(String::as_str);
    let words: Vec<_> =
        ["file", file.name(), package, file.syntax()].into_iter().chain(imports).collect();
    facts.insert(words.join(" "));
    for service in &file.service {
        for method in &service.method {
            assert!(!method.client_streaming() && !method.server_streaming());
            let (request, response) = (method.input_type(), method.output_type());
            facts.insert(format!(
                "rpc {package}.{} {} {} {}",
                service.name(),
                method.name(),
                request.trim_start_matches('.'),
                response.trim_start_matches('.')
            ));
        }
    }
    file.enum_type.iter().for_each(|kind| enum_facts(kind, package, facts));
    file.message_type.iter().for_each(|message| message_facts(message, package, facts));
}

fn enum_facts(kind: &EnumDescriptorProto, scope: &str, facts: &mut Facts) {
    for value in &kind.value {
        let (name, number) = (value.name(), value.number());
        facts.insert(format!("enum {scope}.{} {name} = {number}", kind.name()));
    }
}

fn message_facts(message: &DescriptorProto, scope: &str, facts: &mut Facts) {
    let full = format!("{scope}.{}", message.name());
    facts.insert(format!("message {full}"));
    let is_map_entry = |nested: &&DescriptorProto| nested.options.map_entry();
    let maps: BTreeMap<_, _> = message
        .nested_type
        .iter()
        .filter(is_map_entry)
        .map(|entry| (format!(".{full}.{}", entry.name()), map_type(entry)))
        .collect();
    for field in &message.field {
        facts.insert(field_fact(&full, message, field, &maps));
    }
    message.enum_type.iter().for_each(|kind| enum_facts(kind, &full, facts));
    let nested = message.nested_type.iter().filter(|nested| !is_map_entry(nested));
    nested.for_each(|nested| message_facts(nested, &full, facts));
}

fn map_type(entry: &DescriptorProto) -> String {
    format!("map<{},{}>", type_name(&entry.field[0]), type_name(&entry.field[1]))
}

fn field_fact(
    full: &str,
    message: &DescriptorProto,
    field: &FieldDescriptorProto,
    maps: &BTreeMap<String, String>,
) -> String {
    let label = match field.label() {
        Label::LABEL_REPEATED => "repeated",
        Label::LABEL_OPTIONAL => "optional",
        Label::LABEL_REQUIRED => "required",
    };
    let kind = maps.get(field.type_name()).cloned().unwrap_or_else(|| type_name(field));
    let (number, name) = (field.number(), field.name());
    let mut fact = format!("field {full} {number} {label} {kind} {name}");
    if field.proto3_optional() {
        fact.push_str(" presence");
    } else if field.has_oneof_index() {
        let index = usize::try_from(field.oneof_index()).unwrap();
        fact.push_str(&format!(" oneof={}", message.oneof_decl[index].name()));
    }
    fact
}

fn type_name(field: &FieldDescriptorProto) -> String {
    match field.type_() {
        Type::TYPE_MESSAGE | Type::TYPE_ENUM | Type::TYPE_GROUP => {
            field.type_name().trim_start_matches('.').to_owned()
        }
        scalar => format!("{scalar:?}").trim_start_matches("TYPE_").to_lowercase(),
    }
}

// From Kata's description.

fn json_facts(description: &Value) -> Facts {
    let mut facts = Facts::new();
    for file in list(description, "files") {
        let (path, package) = (text(file, "file"), text(file, "package"));
        let imports = list(file, "imports").iter().map(|import| import.as_str().unwrap());
        let words: Vec<_> =
            ["file", path, package, text(file, "syntax")].into_iter().chain(imports).collect();
        facts.insert(words.join(" "));
        for service in list(file, "services") {
            for rpc in list(service, "rpcs") {
                assert_eq!(
                    (&rpc["client_streaming"], &rpc["server_streaming"]),
                    (&false.into(), &false.into())
                );
                let (name, request, response) =
                    (text(rpc, "name"), text(rpc, "request"), text(rpc, "response"));
                facts.insert(format!(
                    "rpc {} {name} {request} {response}",
                    text(service, "full_name")
                ));
            }
        }
        list(file, "enums").iter().for_each(|kind| json_enum(kind, package, &mut facts));
        list(file, "messages")
            .iter()
            .for_each(|message| json_message(message, package, &mut facts));
    }
    facts
}

fn json_enum(kind: &Value, scope: &str, facts: &mut Facts) {
    for value in list(kind, "values") {
        let (name, number) = (text(value, "name"), &value["number"]);
        facts.insert(format!("enum {scope}.{} {name} = {number}", text(kind, "name")));
    }
}

fn json_message(message: &Value, scope: &str, facts: &mut Facts) {
    let full = format!("{scope}.{}", text(message, "name"));
    facts.insert(format!("message {full}"));
    for field in list(message, "fields") {
        let kind = match &field["map"] {
            Value::Object(map) => {
                let side = |name: &str| map[name].as_str().unwrap();
                format!("map<{},{}>", side("key"), side("value"))
            }
            _ => field["type_name"].as_str().unwrap_or(text(field, "type")).to_owned(),
        };
        let (number, label, name) = (&field["number"], text(field, "label"), text(field, "name"));
        let mut fact = format!("field {full} {number} {label} {kind} {name}");
        if let Some(oneof) = field["oneof"].as_str() {
            fact.push_str(&format!(" oneof={oneof}"));
        }
        if field["proto3_optional"] == true {
            fact.push_str(" presence");
        }
        facts.insert(fact);
    }
    list(message, "enums").iter().for_each(|kind| json_enum(kind, &full, facts));
    list(message, "messages").iter().for_each(|nested| json_message(nested, &full, facts));
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}
