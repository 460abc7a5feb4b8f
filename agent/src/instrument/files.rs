//! Which files have probes, and which processes use them. Comes in: processes that start, fork, become another program, map code,
//! end. Goes out: probes in files that at least one traced process maps, and nowhere else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::further::Further;
use super::worker::{Account, News};
use super::{Facts, Findings, Found, Instrument, Need, Wanted, look};
use crate::kernel::mapping::{Key, key};
use crate::kernel::uprobe::{Links, Point, ProbeError, Probes};
use crate::kernel::usage;
use crate::placement::Rules;
use crate::process::maps::{self, FileId, Mapped};
use crate::process::{Language, Process, command};

/// Files that are known at once.
const MOST_FILES: usize = 4096;
/// Findings that are kept by build id, for the same file in another image.
const MOST_KEPT: usize = 256;
/// Processes that are known at once.
const MOST_PROCESSES: usize = 16 * 1024;
/// Different sentences that are said.
const MOST_SAID: usize = 256;
/// Probes stay so long after their last process: programs that start often would otherwise have them come and go.
const LINGER: Duration = Duration::from_secs(2);
/// A library that is being mapped is complete after this time.
const AGAIN: Duration = Duration::from_millis(20);
/// Shortest and longest time between two looks at a process that maps memory, but no code.
const PATIENCE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(2)];

/// A file that somebody uses.
struct Known {
    findings: Arc<Findings>,
    links: Links,
    sites: usize,
    bits: u32,
    users: HashSet<u32>,
    unused_since: Option<Instant>,
    further: Further,
}

/// A process.
struct User {
    language: Language,
    program: Option<u64>,
    seen: HashSet<FileId>,
    files: HashMap<Key, u64>,
    looked: Instant,
    patience: Duration,
}

/// What findings depend on beside the bytes.
type Likeness = (Vec<u8>, String, bool, Language);

pub(super) struct Files {
    instruments: Vec<Arc<dyn Instrument>>,
    probes: Probes,
    rules: Rules,
    returns: bool,
    account: Arc<Account>,
    news: Sender<News>,
    files: HashMap<Key, Known>,
    kept: HashMap<Likeness, Arc<Findings>>,
    users: HashMap<u32, User>,
    again: HashMap<u32, Instant>,
    said: HashSet<String>,
    /// All bits that some instrument has ever set.
    bits: u32,
    /// A file was looked at, which takes much memory for a moment.
    looked: bool,
}

const PROC: &str = "/proc";

impl Files {
    pub(super) fn new(
        instruments: Vec<Arc<dyn Instrument>>,
        probes: Probes,
        rules: Rules,
        returns: bool,
        account: Arc<Account>,
        news: Sender<News>,
    ) -> Self {
        Self {
            instruments,
            probes,
            rules,
            returns,
            account,
            news,
            files: HashMap::new(),
            kept: HashMap::new(),
            users: HashMap::new(),
            again: HashMap::new(),
            said: HashSet::new(),
            bits: 0,
            looked: false,
        }
    }

    /// A program is going to be started: it, and the libraries that it may load, are looked at before.
    pub(super) fn expected(&mut self, path: &Path) {
        let language = command::language_of(path);
        let names: Vec<&str> = self.instruments.iter().flat_map(|one| one.loaded_late()).copied().collect();
        let libraries = maps::libraries(Path::new(PROC), std::process::id(), &names);
        let programs = [(path.canonicalize().unwrap_or_else(|_| path.into()), true)];
        for (path, is_program) in programs.into_iter().chain(libraries.into_iter().map(|path| (path, false)))
        {
            let Ok(file) = maps::open_plain(&path) else { continue };
            let path = path.to_string_lossy();
            let facts = Facts { path: &path, is_program, language, rules: self.rules, returns: self.returns };
            if self.instruments.iter().any(|instrument| instrument.wants(&facts))
                && let Some(key) = self.known(&file, &facts)
                && let Some(known) = self.files.get_mut(&key)
                && known.users.is_empty()
            {
                known.unused_since = Some(Instant::now());
            }
        }
    }

    pub(super) fn started(&mut self, tgid: u32) {
        if self.users.contains_key(&tgid) {
            return;
        }
        // A process that is gone, or may not be looked at, was told of by whoever traces it.
        let Ok(process) = Process::inspect(tgid) else { return };
        if self.users.len() >= MOST_PROCESSES {
            Account::add(&self.account.full, 1);
            return;
        }
        let now = Instant::now();
        let program = std::fs::metadata(Path::new(PROC).join(tgid.to_string()).join("exe")).ok();
        let user = User {
            language: process.language,
            program: program.map(|about| std::os::unix::fs::MetadataExt::ino(&about)),
            seen: HashSet::new(),
            files: HashMap::new(),
            looked: now,
            patience: PATIENCE[0],
        };
        self.users.insert(tgid, user);
        self.look(tgid);
        self.look_ahead(tgid);
    }

    pub(super) fn forked(&mut self, parent: u32, child: u32) {
        let Some(known) = self.users.get(&parent) else { return self.started(child) };
        if self.users.len() >= MOST_PROCESSES || self.users.contains_key(&child) {
            return;
        }
        let user = User {
            language: known.language,
            program: known.program,
            seen: known.seen.clone(),
            files: known.files.clone(),
            looked: Instant::now(),
            patience: PATIENCE[0],
        };
        for (key, moved) in &user.files {
            if let Some(file) = self.files.get_mut(key) {
                file.users.insert(child);
                file.unused_since = None;
                let findings = Arc::clone(&file.findings);
                self.values(child, &findings, Some(*moved));
            }
        }
        self.users.insert(child, user);
        self.tell_bits(child);
    }

    pub(super) fn became(&mut self, tgid: u32) {
        self.ended(tgid);
        self.started(tgid);
        self.tell_bits(tgid);
        // The dynamic linker is at work now.
        self.again.insert(tgid, Instant::now() + AGAIN);
    }

    pub(super) fn ended(&mut self, tgid: u32) {
        self.again.remove(&tgid);
        let Some(user) = self.users.remove(&tgid) else { return };
        for key in user.files.into_keys() {
            let Some(file) = self.files.get_mut(&key) else { continue };
            file.users.remove(&tgid);
            for need in [Need::Starters, Need::HandOffs] {
                if let Some((links, sites)) = file.further.left(need, tgid) {
                    self.account.sites.fetch_sub(sites as u64, Ordering::Relaxed);
                    links.close();
                }
            }
            if file.users.is_empty() {
                file.unused_since = Some(Instant::now());
            }
            let findings = Arc::clone(&file.findings);
            self.values(tgid, &findings, None);
        }
    }

    pub(super) fn mapped(&mut self, tgid: u32, more: bool) {
        let now = Instant::now();
        let Some(user) = self.users.get(&tgid) else { return self.started(tgid) };
        if !more && now.duration_since(user.looked) < user.patience {
            let at = user.looked + user.patience;
            self.again.entry(tgid).or_insert(at);
            return;
        }
        self.look(tgid);
        self.again.entry(tgid).or_insert(now + AGAIN);
    }

    /// The probes for later of a process's program are needed.
    pub(super) fn more(&mut self, tgid: u32, need: Need) {
        let Ok(file) = File::open(Path::new(PROC).join(tgid.to_string()).join("exe")) else { return };
        let Ok(key) = key(&file) else { return };
        let Some(known) = self.files.get_mut(&key) else { return };
        if !known.further.asked(need, tgid) {
            return;
        }
        let findings = Arc::clone(&known.findings);
        for (name, result) in &findings.by {
            let Ok(Found { later, .. }) = result else { continue };
            let wanted = later.iter().filter(|(of, _)| *of == need).map(|(_, wanted)| wanted.clone());
            let probes: Vec<Wanted> = wanted.collect();
            if probes.is_empty() {
                continue;
            }
            let found = Found { probes, ..Found::default() };
            match self.attach(&file, &found) {
                Ok(links) => {
                    if let Some(known) = self.files.get_mut(&key) {
                        known.further.attached(need, links, found.probes.len());
                        Account::add(&self.account.sites, found.probes.len());
                    }
                }
                Err(error) => self.say(format!("further probes of {name} are not attached: {error}")),
            }
        }
    }

    /// They were of no use to a process.
    pub(super) fn less(&mut self, tgid: u32, need: Need) {
        let Some(user) = self.users.get(&tgid) else { return };
        for key in user.files.keys() {
            if let Some(known) = self.files.get_mut(key)
                && let Some((links, sites)) = known.further.left(need, tgid)
            {
                self.account.sites.fetch_sub(sites as u64, Ordering::Relaxed);
                links.close();
            }
        }
    }

    /// When somebody is to be looked at again.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.again.values().min().copied()
    }

    pub(super) fn look_again(&mut self, now: Instant) {
        let due: Vec<u32> = self.again.iter().filter(|(_, at)| **at <= now).map(|(tgid, _)| *tgid).collect();
        for tgid in due {
            self.again.remove(&tgid);
            self.look(tgid);
        }
    }

    /// Takes away what nobody has used for a while.
    pub(super) fn tidy(&mut self, now: Instant) {
        let old = |file: &Known| {
            file.unused_since
                .is_some_and(|since| now.duration_since(since) >= LINGER || file.links.is_empty())
        };
        let keys: Vec<Key> = self.files.iter().filter(|(_, file)| old(file)).map(|(key, _)| *key).collect();
        let mut links = Links::default();
        for key in keys {
            if let Some(file) = self.files.remove(&key) {
                let (further, sites) = file.further.all();
                self.account.sites.fetch_sub((file.sites + sites) as u64, Ordering::Relaxed);
                links.append(file.links);
                links.append(further);
            }
        }
        links.close();
    }

    /// Gives memory back that looking at files took, at once: what is traced begins to need its own.
    pub(super) fn rest(&mut self) {
        if std::mem::take(&mut self.looked) {
            usage::give_back();
        }
    }

    /// Takes everything away.
    pub(super) fn close(mut self) {
        let mut links = Links::default();
        for (_, file) in self.files.drain() {
            links.append(file.links);
            links.append(file.further.all().0);
        }
        links.close();
    }

    /// Looks at what a process has mapped.
    fn look(&mut self, tgid: u32) {
        // It may have ended.
        let Ok(all) = maps::mapped(Path::new(PROC), tgid) else { return };
        let Some(user) = self.users.get_mut(&tgid) else { return };
        user.looked = Instant::now();
        let fresh: Vec<Mapped> = all.into_iter().filter(|one| user.seen.insert(one.id)).collect();
        user.patience = if fresh.is_empty() { (user.patience * 2).min(PATIENCE[1]) } else { PATIENCE[0] };
        let (language, program) = (user.language, user.program);
        let mut changed = false;
        for one in fresh {
            let is_program = program == Some(one.id.inode);
            let facts =
                Facts { path: &one.path, is_program, language, rules: self.rules, returns: self.returns };
            if !self.instruments.iter().any(|instrument| instrument.wants(&facts)) {
                continue;
            }
            let file = match maps::open(Path::new(PROC), tgid, &one) {
                Ok(file) => file,
                Err(error) => {
                    self.say(format!("{} is not looked at for probes: {error}", one.path));
                    continue;
                }
            };
            changed |= self.uses(tgid, &file, &facts, Some((one.start, one.offset)));
        }
        if changed {
            self.tell_bits(tgid);
        }
    }

    /// Libraries that programs of some languages load late are looked at before.
    fn look_ahead(&mut self, tgid: u32) {
        let Some(user) = self.users.get(&tgid) else { return };
        let language = user.language;
        if !matches!(language, Language::Python | Language::Ruby | Language::Php | Language::Perl) {
            return;
        }
        let names: Vec<&str> = self.instruments.iter().flat_map(|one| one.loaded_late()).copied().collect();
        if names.is_empty() {
            return;
        }
        for path in maps::libraries(Path::new(PROC), tgid, &names) {
            let Ok(file) = maps::open_plain(&path) else { continue };
            let path = path.to_string_lossy();
            let facts =
                Facts { path: &path, is_program: false, language, rules: self.rules, returns: self.returns };
            self.uses(tgid, &file, &facts, None);
        }
        self.tell_bits(tgid);
    }

    /// A process uses a file, or will. Whether anything is new.
    fn uses(&mut self, tgid: u32, file: &File, facts: &Facts<'_>, at: Option<(u64, u64)>) -> bool {
        let Some(key) = self.known(file, facts) else { return false };
        let Some(known) = self.files.get_mut(&key) else { return false };
        known.users.insert(tgid);
        known.unused_since = None;
        let findings = Arc::clone(&known.findings);
        let moved = at.map(|(start, offset)| findings.moved(start, offset));
        if let Some(user) = self.users.get_mut(&tgid) {
            user.files.insert(key, moved.unwrap_or(0));
        }
        if let Some(moved) = moved {
            self.values(tgid, &findings, Some(moved));
        }
        !findings.is_empty()
    }

    /// The file is known, with its probes; none if there is no room.
    fn known(&mut self, file: &File, facts: &Facts<'_>) -> Option<Key> {
        let key = key(file).ok()?;
        if !self.files.contains_key(&key) {
            if self.files.len() >= MOST_FILES {
                self.tidy(Instant::now() + LINGER);
            }
            if self.files.len() >= MOST_FILES {
                Account::add(&self.account.full, 1);
                return None;
            }
            let known = self.learn(file, facts);
            self.files.insert(key, known);
        }
        Some(key)
    }

    /// Looks at a file that nobody has used before, and attaches to it.
    fn learn(&mut self, file: &File, facts: &Facts<'_>) -> Known {
        let findings = self.findings(file, facts);
        let mut known = Known {
            findings: Arc::clone(&findings),
            links: Links::default(),
            sites: 0,
            bits: 0,
            users: HashSet::new(),
            unused_since: None,
            further: Further::default(),
        };
        for (name, result) in &findings.by {
            match result {
                Ok(found) => match self.attach(file, found) {
                    Ok(links) => {
                        known.links.append(links);
                        known.sites += found.probes.len();
                        known.bits |= found.bits;
                        self.bits |= found.bits;
                    }
                    // That there are no probes at all was said at the start.
                    Err(_) if self.probes.lacking().is_some() => {}
                    Err(error) => {
                        self.say(format!("{}: no probes of {name} are attached: {error}", facts.path));
                    }
                },
                Err(why) => self.say(format!("{}: {name} cannot use this file: {why}", facts.path)),
            }
        }
        self.account.sites.fetch_add(known.sites as u64, Ordering::Relaxed);
        Account::add(&self.account.files, usize::from(!known.links.is_empty()));
        known
    }

    fn findings(&mut self, file: &File, facts: &Facts<'_>) -> Arc<Findings> {
        let begin = Instant::now();
        self.looked = true;
        let findings = look(file, facts, &self.instruments);
        tracing::info!("{} was looked at for probes in {:?}", facts.path, begin.elapsed());
        let Some(id) = findings.build_id.clone() else { return Arc::new(findings) };
        let likeness = (id, facts.file_name().to_owned(), facts.is_program, facts.language);
        if self.kept.len() >= MOST_KEPT {
            self.kept.clear();
        }
        Arc::clone(self.kept.entry(likeness).or_insert_with(|| Arc::new(findings)))
    }

    /// Attaches all that an instrument wants, or nothing.
    fn attach(&self, file: &File, found: &Found) -> Result<Links, ProbeError> {
        Account::add(&self.account.wanted, found.probes.len());
        let mut groups: BTreeMap<(&'static str, bool), Vec<Point>> = BTreeMap::new();
        for wanted in &found.probes {
            let point = Point { offset: wanted.site.file_offset, cookie: wanted.cookie };
            groups.entry((wanted.program, wanted.site.returns())).or_default().push(point);
        }
        let mut links = Links::default();
        for ((program, returns), points) in groups {
            match self.probes.attach(program, file.as_fd(), &points, returns) {
                Ok(some) => links.append(some),
                Err(error) => {
                    Account::add(&self.account.refused, found.probes.len());
                    links.close();
                    return Err(error);
                }
            }
        }
        Account::add(&self.account.attached, found.probes.len());
        Ok(links)
    }

    /// Writes, or removes, what maps hold for a process.
    fn values(&mut self, tgid: u32, findings: &Findings, moved: Option<u64>) {
        let found = findings.by.iter().filter_map(|(_, result)| result.as_ref().ok());
        let mut failed = Vec::new();
        for (map, make) in found.flat_map(|found| &found.values) {
            let value = moved.map(make);
            if let Err(error) = self.probes.set(map, tgid, value.as_deref()) {
                failed.push(error.to_string());
            }
        }
        for sentence in failed {
            self.say(sentence);
        }
    }

    fn tell_bits(&self, tgid: u32) {
        if self.bits == 0 {
            return;
        }
        let files = self.users.get(&tgid).into_iter().flat_map(|user| user.files.keys());
        let set = files.filter_map(|key| self.files.get(key)).fold(0, |bits, file| bits | file.bits);
        drop(self.news.send(News::Bits { tgid, set, of: self.bits }));
    }

    fn say(&mut self, sentence: String) {
        if self.said.len() < MOST_SAID && self.said.insert(sentence.clone()) {
            drop(self.news.send(News::Said(sentence)));
        }
    }
}
