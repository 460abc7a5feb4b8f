//! The service of each process: its name and its resource.
//!
//! Every process is a resource of its own (`service.instance.id`); processes of one program share the name. What the
//! program says of itself (`OTEL_RESOURCE_ATTRIBUTES`) wins over what the agent was told for all, and that over what was found;
//! only what was observed of the process (`process.*`, `telemetry.*`) cannot be overruled.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use super::inspect::Process;
use super::name::Program;
use super::procfs::Proc;
use super::service::Service;
use crate::attribute::{Attribute, Value};
use crate::config::{Settings, parse_pairs};

/// What the user said about names and resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// Name of every service, whatever the program says.
    pub forced: Option<Box<str>>,
    /// Name of services whose program says nothing.
    pub fallback: Option<Box<str>>,
    /// Attributes of every resource.
    pub resource: Vec<(String, String)>,
}

impl From<&Settings> for Naming {
    fn from(settings: &Settings) -> Self {
        Self {
            forced: settings.service_name.clone(),
            fallback: settings.default_service_name.clone(),
            resource: settings.resource.clone(),
        }
    }
}

/// What all resources of this host share.
#[derive(Clone, Debug, Default)]
struct Host {
    name: Option<String>,
    id: Option<String>,
    boot: String,
}

impl Host {
    fn look() -> Self {
        let proc = Proc::default();
        let some = |text: String| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        Self {
            name: proc.global("sys/kernel/hostname").ok().and_then(some),
            id: std::fs::read_to_string(Path::new("/etc/machine-id")).ok().and_then(some),
            boot: proc.global("sys/kernel/random/boot_id").unwrap_or_default(),
        }
    }
}

/// Services handed out so far.
#[derive(Debug)]
pub struct Services {
    naming: Naming,
    host: Host,
    known: HashMap<u32, Known>,
    next: u32,
}

#[derive(Debug)]
struct Known {
    start_ticks: u64,
    exe: std::path::PathBuf,
    cmdline: Vec<Box<str>>,
    service: Arc<Service>,
}

impl Services {
    /// Services under these names.
    pub fn new(naming: Naming) -> Self {
        Self { naming, host: Host::look(), known: HashMap::new(), next: 1 }
    }

    /// The service of a process: the same one as before, unless the process has become another program since.
    pub fn for_process(&mut self, process: &Process) -> Arc<Service> {
        if let Some(known) = self.known.get(&process.tgid)
            && known.start_ticks == process.start_ticks
            && known.exe == process.exe
            && known.cmdline == process.cmdline
        {
            return Arc::clone(&known.service);
        }
        let name = self.name(process);
        let attributes = self.attributes(process, &name);
        let service = Arc::new(Service { id: self.next, name: name.into(), attributes });
        self.next = self.next.wrapping_add(1);
        self.known.insert(
            process.tgid,
            Known {
                start_ticks: process.start_ticks,
                exe: process.exe.clone(),
                cmdline: process.cmdline.clone(),
                service: Arc::clone(&service),
            },
        );
        service
    }

    /// The service of a process that was gone before it could be looked at: only its name is known.
    pub fn for_gone(&mut self, tgid: u32, name: &str) -> Arc<Service> {
        let name = self.naming.forced.as_deref().unwrap_or(name);
        let mut attributes: Vec<Attribute> = vec![
            (Cow::Borrowed("service.name"), Value::Str(name.to_owned().into())),
            (Cow::Borrowed("process.pid"), Value::Int(i64::from(tgid))),
            (Cow::Borrowed("os.type"), Value::Str("linux".into())),
        ];
        if let Some(host) = &self.host.name {
            attributes.push((Cow::Borrowed("host.name"), Value::Str(host.clone().into())));
        }
        let service = Arc::new(Service { id: self.next, name: name.into(), attributes });
        self.next = self.next.wrapping_add(1);
        service
    }

    /// Forgets all but these.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.known.retain(|tgid, _| keep(*tgid));
    }

    /// Processes that are remembered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Forgets a process that has ended.
    pub fn forget(&mut self, tgid: u32) {
        self.known.remove(&tgid);
    }

    fn name(&self, process: &Process) -> String {
        let said = self.naming.forced.as_deref().map(str::to_owned);
        said.or_else(|| process.otel_service_name.clone())
            .or_else(|| own_attributes(process).remove("service.name").filter(|name| !name.is_empty()))
            .or_else(|| self.naming.fallback.as_deref().map(str::to_owned))
            .unwrap_or_else(|| {
                let program = Program {
                    language: process.language,
                    exe_name: process.exe_name(),
                    cmdline: &process.cmdline,
                    cwd: process.cwd.as_deref(),
                };
                // A worker is named as its parent was.
                let parent = self.known.get(&process.parent);
                match parent.filter(|parent| program.is_worker() && parent.exe == process.exe) {
                    Some(parent) => parent.service.name.as_ref().to_owned(),
                    None => program.service_name(),
                }
            })
    }

    fn attributes(&self, process: &Process, name: &str) -> Vec<Attribute> {
        let mut texts: BTreeMap<Cow<'static, str>, String> = BTreeMap::new();
        let mut put = |key: &'static str, value: Option<&str>| {
            if let Some(value) = value {
                texts.insert(Cow::Borrowed(key), value.to_owned());
            }
        };
        put("service.instance.id", Some(&self.instance(process)));
        put("host.name", self.host.name.as_deref());
        put("host.id", self.host.id.as_deref());
        put("os.type", Some("linux"));
        put("container.id", process.container.as_deref());
        let said = self.naming.resource.iter().cloned().chain(own_attributes(process));
        for (key, value) in said.filter(|(key, _)| !observed(key)) {
            texts.insert(Cow::Owned(key), value);
        }
        let mut put = |key: &'static str, value: &str| _ = texts.insert(Cow::Borrowed(key), value.to_owned());
        put("service.name", name);
        put("telemetry.sdk.language", process.language.as_str());
        put("telemetry.sdk.name", "spanwise");
        put("telemetry.sdk.version", env!("CARGO_PKG_VERSION"));
        put("telemetry.distro.name", "spanwise");
        put("telemetry.distro.version", env!("CARGO_PKG_VERSION"));
        put("process.executable.name", process.exe_name());
        put("process.executable.path", &process.exe.to_string_lossy());
        let mut all: Vec<Attribute> =
            texts.into_iter().map(|(key, value)| (key, Value::Str(value.into()))).collect();
        all.push((Cow::Borrowed("process.pid"), Value::Int(i64::from(process.tgid))));
        all
    }

    /// An id that is the same whenever and by whomever this process is looked at, in the form of a UUID (version 8: made
    /// from what its maker chose).
    fn instance(&self, process: &Process) -> String {
        let start = process.start_ticks.to_le_bytes();
        let pid = process.tgid.to_le_bytes();
        let id = self.host.id.as_deref().unwrap_or_default().as_bytes();
        let hash = [id, self.host.boot.as_bytes(), &pid, &start]
            .iter()
            .flat_map(|part| part.iter())
            .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
                (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
            });
        let hash = hash & !(0xf << 76) & !(0x3 << 62) | (0x8 << 76) | (0x2 << 62);
        let hex = format!("{hash:032x}");
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
        format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
    }
}

/// Whether this attribute is a fact about the process, which nobody else can know better.
fn observed(key: &str) -> bool {
    key.starts_with("telemetry.") || key.starts_with("process.") || key == "service.name"
}

/// The process's own `OTEL_RESOURCE_ATTRIBUTES`. A list with an error counts as empty, as OpenTelemetry has it.
fn own_attributes(process: &Process) -> BTreeMap<String, String> {
    let text = process.otel_resource_attributes.as_deref().unwrap_or_default();
    parse_pairs(text).unwrap_or_default().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Language;

    fn process(tgid: u32, line: &[&str]) -> Process {
        Process {
            tgid,
            parent: 1,
            start_ticks: 100,
            comm: "python3".into(),
            exe: "/usr/bin/python3.11".into(),
            deleted: false,
            cmdline: line.iter().map(|s| (*s).into()).collect(),
            cwd: Some("/srv".into()),
            otel_service_name: None,
            otel_resource_attributes: None,
            pid_namespace: None,
            inner_tgid: tgid,
            container: Some("c".repeat(64).into()),
            language: Language::Python,
            libraries: vec![],
        }
    }

    fn text<'a>(service: &'a Service, key: &str) -> Option<&'a str> {
        let mut found = service.attributes.iter().filter(|(k, _)| k == key);
        let first = found.next();
        assert!(found.next().is_none(), "{key} twice");
        first.map(|(_, value)| match value {
            Value::Str(text) => text.as_ref(),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn who_names_the_service() {
        let named =
            |naming: &Naming, p: &Process| Services::new(naming.clone()).for_process(p).name.to_string();
        let mut p = process(7, &["python3", "app.py", "--password", "hunter2"]);
        let mut naming = Naming::default();
        assert_eq!(named(&naming, &p), "app");
        naming.fallback = Some("fallback".into());
        assert_eq!(named(&naming, &p), "fallback");
        p.otel_resource_attributes = Some("service.name=attribute,team=a%20b".into());
        assert_eq!(named(&naming, &p), "attribute");
        p.otel_service_name = Some("own".into());
        assert_eq!(named(&naming, &p), "own");
        naming.forced = Some("forced".into());
        assert_eq!(named(&naming, &p), "forced");
        assert_eq!(text(&Services::new(naming).for_process(&p), "service.name"), Some("forced"));
    }

    #[test]
    fn resources() {
        let mut p = process(7, &["python3", "app.py", "--password", "hunter2"]);
        p.otel_resource_attributes =
            Some("team=own,process.pid=1,telemetry.sdk.language=cobol,host.name=h".into());
        let resource = vec![("team".to_owned(), "all".to_owned()), ("zone".to_owned(), "z".to_owned())];
        let service = Services::new(Naming { resource, ..Naming::default() }).for_process(&p);
        for (key, expected) in [
            ("telemetry.sdk.language", "python"),
            ("telemetry.sdk.name", "spanwise"),
            ("telemetry.distro.name", "spanwise"),
            ("process.executable.name", "python3.11"),
            ("process.executable.path", "/usr/bin/python3.11"),
            ("os.type", "linux"),
            ("host.name", "h"),
            ("team", "own"),
            ("zone", "z"),
            ("container.id", &"c".repeat(64)),
        ] {
            assert_eq!(text(&service, key), Some(expected), "{key}");
        }
        let pids: Vec<_> = service.attributes.iter().filter(|(key, _)| key == "process.pid").collect();
        assert_eq!(pids, [&(Cow::Borrowed("process.pid"), Value::Int(7))]);
        assert!(!format!("{service:?}").contains("hunter2"), "arguments stay here");
    }

    #[test]
    fn instances_are_stable_and_distinct() {
        let id = |services: &mut Services, p: &Process| {
            text(&services.for_process(p), "service.instance.id").unwrap().to_owned()
        };
        let (a, b) = (process(7, &["python3", "app.py"]), process(8, &["python3", "app.py"]));
        let mut services = Services::new(Naming::default());
        let first = id(&mut services, &a);
        assert_eq!(first, id(&mut Services::new(Naming::default()), &a), "another agent says the same");
        assert_ne!(first, id(&mut services, &b));
        assert_ne!(
            first,
            id(&mut services, &Process { start_ticks: 101, ..a.clone() }),
            "the pid was used again"
        );
        let shape: Vec<usize> = first.split('-').map(str::len).collect();
        assert_eq!(shape, [8, 4, 4, 4, 12]);
        assert_eq!(&first[14..15], "8");
        assert!("89ab".contains(&first[19..20]), "{first}");
    }

    #[test]
    fn one_service_per_process_and_a_new_one_after_exec() {
        let mut services = Services::new(Naming::default());
        let shell = process(7, &["python3", "launch.py"]);
        let first = services.for_process(&shell);
        assert!(Arc::ptr_eq(&first, &services.for_process(&shell)));
        let second = services.for_process(&process(7, &["python3", "app.py"]));
        assert_eq!((first.name.as_ref(), second.name.as_ref()), ("launch", "app"));
        assert_ne!(first.id, second.id);
        services.forget(7);
        assert!(!Arc::ptr_eq(&second, &services.for_process(&process(7, &["python3", "app.py"]))));
    }

    #[test]
    fn a_worker_with_a_title_is_named_as_its_parent() {
        let mut services = Services::new(Naming::default());
        let parent = services.for_process(&process(7, &["python3", "shop.py"]));
        let child = Process { parent: 7, ..process(8, &["shop worker 1 (idle)"]) };
        let child = services.for_process(&child);
        assert_eq!(child.name, parent.name);
        assert_ne!(text(&child, "service.instance.id"), text(&parent, "service.instance.id"));
        let stranger = Process { parent: 7, exe: "/bin/x".into(), ..process(9, &["a title of its own"]) };
        assert_eq!(services.for_process(&stranger).name.as_ref(), "x");
    }
}
