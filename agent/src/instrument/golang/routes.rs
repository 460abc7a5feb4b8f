//! Patterns of routers: no probe at all. Comes in: the program. Goes out: where the goroutine of a server's connection keeps the
//! connection on its stack, which the machine code tells, and what leads from there to the pattern that a request was matched with.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use spanwise_common::config::proc;
use spanwise_common::golang::{MAX_FRAME, ROUTERS, Router, Routes, fixed, router};
use spanwise_common::names;
use spanwise_common::offsets::MISSING;
use spanwise_golang::{Unknown, Version};

use super::{Lack, Program};
use crate::instrument::Found;
use crate::placement::Function;

/// What serves a connection for the whole of its life.
const SERVE: &str = "net/http.(*conn).serve";
/// What `go c.serve(ctx)` starts: the compiler makes one of these of it, by its order among those of the function.
const STARTED: [&str; 8] = [
    "net/http.(*Server).Serve.gowrap1",
    "net/http.(*Server).Serve.gowrap2",
    "net/http.(*Server).Serve.gowrap3",
    "net/http.(*Server).Serve.gowrap4",
    "net/http.(*Server).Serve.func1",
    "net/http.(*Server).Serve.func2",
    "net/http.(*Server).Serve.func3",
    "net/http.(*Server).Serve.func4",
];

/// A goroutine begins so far below the end of its stack: four words that are left free, and the address to return to.
const BEGINS: i64 = 40;
/// Instructions in which a function keeps its arguments.
const PROLOGUE: usize = 40;

/// A router: its module, what it serves by, its members.
struct Known {
    module: &'static str,
    /// The first version whose patterns can be believed.
    since: Option<Version>,
    serve: &'static str,
    pool: (&'static str, &'static str),
    through: Option<(&'static str, &'static str)>,
    mark: &'static [(&'static str, &'static str)],
    pattern: (&'static str, &'static str),
    bits: u32,
}

const GIN: &str = "github.com/gin-gonic/gin";
const ECHO: &str = "github.com/labstack/echo/v4";
const CHI: &str = "github.com/go-chi/chi/v5";

const ROUTERS_KNOWN: [Known; ROUTERS] = [
    Known {
        module: GIN,
        since: None,
        serve: "github.com/gin-gonic/gin.(*Engine).ServeHTTP",
        pool: ("github.com/gin-gonic/gin.Engine", "pool"),
        through: None,
        mark: &[
            ("github.com/gin-gonic/gin.Context", "writermem"),
            ("github.com/gin-gonic/gin.responseWriter", "ResponseWriter"),
        ],
        pattern: ("github.com/gin-gonic/gin.Context", "fullPath"),
        bits: 0,
    },
    Known {
        module: ECHO,
        // Before, it keeps the path in place of a pattern where it has none.
        since: Some(Version { major: 4, minor: 10, patch: 2 }),
        serve: "github.com/labstack/echo/v4.(*Echo).ServeHTTP",
        pool: ("github.com/labstack/echo/v4.Echo", "pool"),
        through: Some(("github.com/labstack/echo/v4.context", "response")),
        mark: &[("github.com/labstack/echo/v4.Response", "Writer")],
        pattern: ("github.com/labstack/echo/v4.context", "path"),
        bits: 0,
    },
    Known {
        module: CHI,
        since: None,
        serve: "github.com/go-chi/chi/v5.(*Mux).ServeHTTP",
        pool: ("github.com/go-chi/chi/v5.Mux", "pool"),
        through: None,
        mark: &[("github.com/go-chi/chi/v5.Context", "parentCtx")],
        pattern: ("github.com/go-chi/chi/v5.Context", "RoutePatterns"),
        bits: router::POOL_POINTER | router::BY_CONTEXT | router::LIST,
    },
];

/// By what that calls the server's handler.
const HANDLE: &str = "net/http.serverHandler.ServeHTTP";

/// Functions that are looked for.
pub(super) fn functions() -> impl Iterator<Item = &'static str> {
    let routers = ROUTERS_KNOWN.iter().map(|known| known.serve);
    [SERVE, HANDLE].into_iter().chain(STARTED).chain(routers)
}

/// Adds what leads to patterns, if the program serves HTTP.
pub(super) fn look(program: &Program<'_, '_>, found: &mut Found) {
    match way(program, found) {
        Ok(routes) => {
            found.bits |= proc::ROUTES;
            found.values.push((names::GO_ROUTES, Box::new(move |moved| bytes(&routes, moved))));
        }
        Err(lack) => lack.tell(found),
    }
}

fn way(program: &Program<'_, '_>, found: &mut Found) -> Result<Routes, Lack> {
    let serve = program.function(SERVE)?;
    let (start, slot) = STARTED
        .iter()
        .filter_map(|name| program.function(name).ok())
        .find_map(|started| Some((started.address, slot(&started, serve.address)?)))
        .filter(|_| keeps_first_argument(&serve))
        .ok_or_else(|| {
            Lack::Said(format!(
                "{}: how a server starts its connections is not known, so spans have no http.route",
                program.binary.info.compiler
            ))
        })?;
    program.expect_sockets()?;
    program.expect(&[
        ("net/http.conn", "server", fixed::FIRST),
        ("net/http.response", "conn", fixed::FIRST),
        ("sync.Pool", "local", fixed::FIRST),
        ("sync.poolLocalInternal", "private", fixed::FIRST),
        ("sync.poolLocalInternal", "shared", fixed::SHARED),
        ("sync.poolChain", "head", fixed::FIRST),
        ("sync.poolDequeue", "headTail", fixed::FIRST),
        ("sync.poolDequeue", "vals", fixed::VALUES),
        ("runtime.p", "id", fixed::FIRST),
    ])?;
    let offset = |strukt, member| program.binary.offset(strukt, member);
    let (pattern, indirect) = pattern(program)?;
    let mut routers = [Router::default(); ROUTERS];
    for (slot, known) in routers.iter_mut().zip(&ROUTERS_KNOWN) {
        match known.find(program) {
            Ok(router) => *slot = router,
            Err(why) => found.notes.push(format!("spans have no http.route of {}: {why}", known.module)),
        }
    }
    let handle = program.function(HANDLE).ok().and_then(|handle| frame(&handle));
    // Each call leaves an address to return to.
    let called = frame(&serve).zip(handle).map_or(0, |(serve, handle)| slot + serve + handle + 3 * 8);
    // The kernel side keeps these in sixteen bits, all ones for what is not there.
    let far = |what, at| {
        Lack::Said(format!("{what} is said to be at {at}, where it cannot be, so spans have no http.route"))
    };
    let short = |strukt, member| match offset(strukt, member)? {
        at @ 0xffff.. => Err(far(format!("{strukt}.{member}"), at)),
        offset => Ok(offset),
    };
    if (0xffff..MISSING).contains(&pattern) {
        return Err(far("the pattern of net/http.Request".to_owned(), pattern));
    }
    Ok(Routes {
        start,
        slot,
        called,
        pad: 0,
        transport: offset("net/http.conn", "rwc")?,
        current: short("net/http.conn", "curReq")?,
        request: short("net/http.response", "req")?,
        pattern,
        indirect,
        handler: offset("net/http.Server", "Handler")?,
        context: offset("net/http.Request", "ctx")?,
        processor: offset("runtime.m", "p")?,
        processor_before: offset("runtime.m", "oldp")?,
        routers,
    })
}

/// Where a request keeps its pattern, and whether that is a pointer: a string since Go 1.23, nothing before 1.22.
fn pattern(program: &Program<'_, '_>) -> Result<(u32, u32), Lack> {
    let member = |name| match program.binary.offset("net/http.Request", name) {
        Err(Unknown::Missing { .. }) => Ok(None),
        other => other.map(Some),
    };
    if let Some(offset) = member("Pattern")? {
        return Ok((offset, 0));
    }
    let Some(offset) = member("pat")? else { return Ok((MISSING, 0)) };
    program.expect(&[("net/http.pattern", "str", fixed::FIRST)])?;
    Ok((offset, 1))
}

impl Known {
    /// The router, if the program has it.
    fn find(&self, program: &Program<'_, '_>) -> Result<Router, String> {
        let Some(serve) = program.address(self.serve) else { return Ok(Router::default()) };
        if let Some(since) = self.since
            && program.binary.info.module(self.module).and_then(Version::of_module) < Some(since)
        {
            return Err(format!("versions before {since} keep a path where they have no pattern"));
        }
        let offset = |(strukt, member)| {
            let offset = program.binary.module_offset(self.module, strukt, member);
            offset.map_err(|unknown: Unknown| unknown.to_string())
        };
        let mut mark = 0;
        for member in self.mark {
            mark += offset(*member)?;
        }
        Ok(Router {
            serve,
            pool: offset(self.pool)?,
            through: self.through.map_or(Ok(MISSING), offset)?,
            mark,
            pattern: offset(self.pattern)?,
            bits: self.bits,
            frame: program
                .function(self.serve)
                .ok()
                .and_then(|serve| frame(&serve))
                .map_or(0, |bytes| bytes / 8),
        })
    }
}

fn lines<'a>(function: &Function<'a>) -> impl Iterator<Item = Instruction> + 'a {
    let mut decoder = Decoder::with_ip(64, function.code, function.address, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
        .take_while(|line| !line.is_invalid())
}

/// By how much an instruction moves the stack pointer down; nothing if that is not known.
fn sinks(line: &Instruction) -> Option<i64> {
    let on_stack_pointer = line.op0_register() == Register::RSP;
    match line.mnemonic() {
        Mnemonic::Push => Some(8),
        Mnemonic::Pop => Some(-8),
        Mnemonic::Sub if on_stack_pointer => line.try_immediate(1).ok().map(|by| by as i64),
        Mnemonic::Add if on_stack_pointer => line.try_immediate(1).ok().map(|by| -(by as i64)),
        Mnemonic::Cmp | Mnemonic::Test => Some(0),
        _ => (!on_stack_pointer).then_some(0),
    }
}

/// Where what a goroutine calls first keeps its first argument: so many bytes below the end of the stack. The caller leaves room for
/// it just above the address to return to.
fn slot(started: &Function<'_>, serve: u64) -> Option<u32> {
    let mut depth = BEGINS;
    for line in lines(started) {
        if line.is_call_near() {
            return (line.near_branch_target() == serve && depth > 0 && depth < 4096 && depth % 8 == 0)
                .then_some(depth as u32);
        }
        depth += sinks(&line)?;
    }
    None
}

/// Bytes of the stack that a function takes, as its beginning tells.
fn frame(function: &Function<'_>) -> Option<u32> {
    let mut depth = 0;
    for line in lines(function).take(PROLOGUE) {
        depth += sinks(&line)?;
        if line.mnemonic() == Mnemonic::Sub && line.op0_register() == Register::RSP {
            return u32::try_from(depth).ok().filter(|depth| depth % 8 == 0 && *depth < 1 << 16);
        }
        if line.is_call_near() || line.is_call_near_indirect() {
            break;
        }
    }
    None
}

/// Whether a function keeps its first argument where its caller has left room for it.
fn keeps_first_argument(function: &Function<'_>) -> bool {
    let mut depth = 0;
    for line in lines(function).take(PROLOGUE) {
        if line.is_call_near() || line.is_call_near_indirect() {
            return false;
        }
        let stored = line.mnemonic() == Mnemonic::Mov
            && line.op0_kind() == OpKind::Memory
            && line.op1_register() == Register::RAX;
        if stored && line.memory_base() == Register::RSP {
            return line.memory_index() == Register::None && line.memory_displacement64() as i64 == depth + 8;
        }
        let Some(by) = sinks(&line) else { return false };
        depth += by;
    }
    false
}

/// What the map holds for a process that has moved the program so far.
fn bytes(routes: &Routes, moved: u64) -> Vec<u8> {
    let Routes { start, slot, transport, current, request, pattern, indirect, .. } = *routes;
    let Routes { handler, context, called, pad, processor, processor_before, .. } = *routes;
    let mut bytes = Vec::with_capacity(size_of::<Routes>());
    bytes.extend(start.wrapping_add(moved).to_ne_bytes());
    let offsets = [slot, transport, current, request, pattern, indirect, handler, context];
    for offset in offsets.into_iter().chain([called, pad, processor, processor_before]) {
        bytes.extend(offset.to_ne_bytes());
    }
    for Router { serve, pool, through, mark, pattern, bits, frame } in routes.routers {
        let serve = if serve == 0 { 0 } else { serve.wrapping_add(moved) };
        bytes.extend(serve.to_ne_bytes());
        for number in [pool, through, mark, pattern, bits, frame.min(MAX_FRAME)] {
            bytes.extend(number.to_ne_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(code: &[u8]) -> Function<'_> {
        Function { name: "f", address: 0x1000, file_offset: 0, code, jumped_to: &[] }
    }

    /// push rbp; mov rbp,rsp; sub rsp,0x18; mov rax,[rdx+8]; call 0x2000
    const STARTED: [u8; 17] =
        [0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x18, 0x48, 0x8b, 0x42, 0x08, 0xe8, 0xef, 0x0f, 0, 0];

    #[test]
    fn the_place_on_the_stack_is_read_from_the_code() {
        assert_eq!(slot(&function(&STARTED), 0x2000), Some(72));
        assert_eq!(slot(&function(&STARTED), 0x3000), None, "it calls something else");
        assert_eq!(slot(&function(&STARTED[..8]), 0x2000), None, "it calls nothing");
    }

    #[test]
    fn what_a_function_takes_is_read_from_its_beginning() {
        assert_eq!(frame(&function(&STARTED)), Some(32));
        assert_eq!(frame(&function(&STARTED[8..])), None, "it calls first");
        assert_eq!(frame(&function(&STARTED[..4])), None);
    }

    #[test]
    fn strange_code_is_refused() {
        // sub rsp,[rax]; call 0x2000
        let strange = [0x48, 0x2b, 0x20, 0xe8, 0xf8, 0x0f, 0, 0];
        assert_eq!((slot(&function(&strange), 0x2000), frame(&function(&strange))), (None, None));
        // mov rsp,rax; call 0x2000
        let strange = [0x48, 0x89, 0xc4, 0xe8, 0xf8, 0x0f, 0, 0];
        assert_eq!((slot(&function(&strange), 0x2000), frame(&function(&strange))), (None, None));
        // sub rsp,-0x80 goes up.
        assert_eq!(slot(&function(&[0x48, 0x83, 0xec, 0x80, 0xe8, 0xf7, 0x0f, 0, 0]), 0x2000), None);
        assert_eq!(frame(&function(&[0x48, 0x83, 0xec, 0x80])), None);
    }

    #[test]
    fn the_argument_must_be_kept_in_its_place() {
        // push rbp; sub rsp,0x418; mov [rsp+0x428],rax
        let kept = [0x55, 0x48, 0x81, 0xec, 0x18, 4, 0, 0, 0x48, 0x89, 0x84, 0x24, 0x28, 4, 0, 0];
        assert!(keeps_first_argument(&function(&kept)));
        let mut elsewhere = kept;
        elsewhere[12] = 0x20;
        assert!(!keeps_first_argument(&function(&elsewhere)));
        assert!(!keeps_first_argument(&function(&kept[..8])));
        assert!(!keeps_first_argument(&function(&STARTED)), "it calls before");
    }

    #[test]
    fn the_map_holds_the_struct() {
        let mut routes = Routes { start: 0x1000, slot: 72, pattern: 256, ..Routes::default() };
        routes.routers[1] = Router { serve: 0x2000, pattern: 9, ..Router::default() };
        let bytes = bytes(&routes, 0x5000_0000);
        assert_eq!(bytes.len(), size_of::<Routes>());
        assert_eq!(bytes[..8], 0x5000_1000_u64.to_ne_bytes());
        assert_eq!(bytes[8..12], 72_u32.to_ne_bytes());
        assert_eq!(bytes[24..28], 256_u32.to_ne_bytes());
        assert_eq!(bytes[56..64], [0; 8], "there is no router");
        assert_eq!(bytes[88..96], 0x5000_2000_u64.to_ne_bytes());
        assert_eq!(bytes[108..112], 9_u32.to_ne_bytes());
    }
}
