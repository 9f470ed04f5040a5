//! Plugins in Zig: the worlds `key-plugin` and `loader-plugin` of ../wit.
//!
//! A key plugin has two functions, `describe` and `derive`, and says
//! `comptime { lamina.plugin(@This()); }`. A loader has `describe` and `load`, and says
//! `comptime { lamina.loader(@This()); }`. They are linked with
//! ../c/key_plugin_component_type.s or ../c/loader_plugin_component_type.s, which hold the
//! worlds in binary form; README.md has the command.
//!
//! The structs have the layout that the component model's canonical ABI prescribes for
//! 32-bit memories. Memory comes from one arena that is emptied after each call: nothing is
//! ever freed by hand.

const std = @import("std");

/// Text, UTF-8.
pub const Text = extern struct {
    ptr: ?[*]const u8 = null,
    len: usize = 0,

    /// Text with these bytes, which must outlive the call.
    pub fn of(bytes: []const u8) Text {
        return .{ .ptr = bytes.ptr, .len = bytes.len };
    }

    /// Its bytes.
    pub fn slice(self: Text) []const u8 {
        return if (self.ptr) |ptr| ptr[0..self.len] else "";
    }
};

fn List(comptime Item: type) type {
    return extern struct {
        ptr: ?[*]const Item = null,
        len: usize = 0,

        /// A list of these, which must outlive the call.
        pub fn of(items: []const Item) @This() {
            return .{ .ptr = items.ptr, .len = items.len };
        }

        /// Its items.
        pub fn slice(self: @This()) []const Item {
            return if (self.ptr) |ptr| ptr[0..self.len] else &.{};
        }
    };
}

pub const Texts = List(Text);
/// A header line, its name in lower case, or a cookie.
pub const Field = extern struct { name: Text, value: Text };
pub const Fields = List(Field);

/// What `derive` gets: what the manifest declared, and nothing else.
pub const KeyInputs = struct {
    method: ?[]const u8,
    host: ?[]const u8,
    path: ?[]const u8,
    query: ?[]const u8,
    headers: []const Field,
    cookies: []const Field,
};

/// The value of the first field of this name.
pub fn valueOf(fields: []const Field, name: []const u8) ?[]const u8 {
    for (fields) |field| {
        if (std.mem.eql(u8, field.name.slice(), name)) return field.value.slice();
    }
    return null;
}

pub const KeyNeeds = extern struct {
    method: bool = false,
    host: bool = false,
    path: bool = false,
    query: Query = .{},
    headers: Texts = .{},
    cookies: Texts = .{},

    pub const Query = extern struct {
        tag: enum(u8) { none, whole, parameters } = .none,
        parameters: Texts = .{},
    };
};

pub const KeyRules = extern struct {
    has_keep: bool = false,
    keep: Texts = .{},
    drop: Texts = .{},
    sort: bool = false,
    headers: Texts = .{},
    cookies: Texts = .{},
};

pub const Manifest = extern struct {
    name: Text,
    version: Text,
    inputs: KeyNeeds = .{},
    is_declarative: bool = false,
    declarative: KeyRules = .{},
    /// What hooks beside the key get.
    reads: extern struct { headers: Texts = .{}, cookies: Texts = .{} } = .{},
};

/// What `describe` answers: a manifest, or what is wrong with the configuration.
pub const Description = union(enum) { manifest: Manifest, wrong: []const u8 };

pub const CacheKey = extern struct { text: Text, parts: Texts = .{}, tags: Texts = .{} };

/// What `derive` answers.
pub const Decision = union(enum) {
    default,
    key: CacheKey,
    bypass: []const u8,
    refuse: u16,
};

/// A header line; its name in any case, its value any bytes.
pub const Header = extern struct { name: Text, value: Text };
pub const Headers = List(Header);

/// A request that a loader is to answer, with the headers that the manifest `reads`.
pub const Request = extern struct {
    method: Text,
    scheme: Text,
    host: Text,
    path_and_query: Text,
    headers: Headers = .{},
    body: Text = .{},
};

pub const Context = struct {
    route: []const u8,
    /// Milliseconds until the call is ended.
    deadline_ms: u32,
    /// Bytes that the body of the response may have.
    max_body: u64,
};

pub const Response = extern struct {
    /// 200 to 599.
    status: u16,
    headers: Headers = .{},
    body: Text = .{},
    /// Milliseconds; counts more than `Cache-Control`.
    ttl: extern struct { is_some: bool = false, ms: u64 = 0 } = .{},
    tags: Texts = .{},
};

/// What `load` answers; the reasons are for the log.
pub const LoadDecision = union(enum) {
    response: Response,
    /// Let the route's upstream answer this instead.
    pass: Request,
    absent,
    stale: []const u8,
    failed: []const u8,
};

/// A request to an upstream that the YAML names in `plugins.NAME.fetch`.
pub const FetchRequest = extern struct {
    upstream: Text,
    method: Text = .of("GET"),
    path_and_query: Text,
    headers: Headers = .{},
    body: Text = .{},
    timeout: extern struct { is_some: bool = false, ms: u32 = 0 } = .{},
};

/// What an upstream answered.
pub const FetchResponse = extern struct { status: u16, headers: Headers, body: Text };

/// Why there is no answer; `why` says more where it is `invalid` or `unavailable`.
pub const FetchError = extern struct {
    tag: enum(u8) { denied, invalid, too_many, timeout, too_large, unavailable },
    why: Text,
};

pub const Fetched = union(enum) { response: FetchResponse, failed: FetchError };

/// One request, and the wait for its answer, which lasts until the end of the call.
pub fn fetch(request: FetchRequest) Fetched {
    return fetchAll(&.{request})[0];
}

/// Several at once; the answers come in the order of the requests.
pub fn fetchAll(requests: []const FetchRequest) []const Fetched {
    const import = struct {
        extern "lamina:plugin/fetch@1.0.0" fn @"fetch-all"(
            requests: [*]const FetchRequest,
            count: usize,
            out: *List(WireFetched),
        ) void;
    };
    var came: List(WireFetched) = .{};
    import.@"fetch-all"(requests.ptr, requests.len, &came);
    const answers = alloc(Fetched, came.len);
    for (came.slice(), answers) |wire, *answer| answer.* = switch (wire.is_error) {
        true => .{ .failed = wire.value.failed },
        false => .{ .response = wire.value.response },
    };
    return answers;
}

const WireFetched = extern struct {
    is_error: bool,
    value: extern union { response: FetchResponse, failed: FetchError },
};

const WireLoadDecision = extern struct {
    tag: enum(u8) { response, pass, absent, stale, failed },
    value: extern union { response: Response, pass: Request, why: Text },
};

const WireDescription = extern struct {
    is_error: bool,
    value: extern union { manifest: Manifest, wrong: Text },
};

const WireDecision = extern struct {
    tag: enum(u8) { default, key, bypass, refuse },
    value: extern union { key: CacheKey, bypass: Text, refuse: u16 },
};

/// The arena begins where the linker's data ends, and grows up to `limits.max_memory`; the
/// trap beyond that costs this one call.
extern var __heap_base: u8;
var used: usize = 0;
/// What the configuration took; it stays for the life of the instance.
var kept: usize = 0;

/// Memory until the end of the call.
pub fn alloc(comptime Item: type, count: usize) []Item {
    const bytes = take(count * @sizeOf(Item));
    return @as([*]Item, @ptrCast(@alignCast(bytes)))[0..count];
}

/// The texts one after the other, in memory of the call.
pub fn join(texts: []const []const u8) []const u8 {
    var length: usize = 0;
    for (texts) |text| length += text.len;
    const joined = alloc(u8, length);
    var at: usize = 0;
    for (texts) |text| {
        @memcpy(joined[at..][0..text.len], text);
        at += text.len;
    }
    return joined;
}

fn take(size: usize) [*]align(8) u8 {
    const base = @intFromPtr(&__heap_base);
    const start = std.mem.alignForward(usize, base + used, 8);
    const have = @wasmMemorySize(0) * page;
    if (size > std.math.maxInt(usize) - start - page) @trap();
    if (start + size > have) {
        if (@wasmMemoryGrow(0, (start + size - have + page - 1) / page) < 0) @trap();
    }
    used = start + size - base;
    return @ptrFromInt(start);
}

const page = 1 << 16;

/// Exports the functions of a loader as the contract names them.
pub fn loader(comptime Plugin: type) void {
    const exports = struct {
        var decision: WireLoadDecision = undefined;

        fn load(
            method: Text0,
            method_len: usize,
            scheme: Text0,
            scheme_len: usize,
            host: Text0,
            host_len: usize,
            path: Text0,
            path_len: usize,
            headers: ?[*]const Header,
            headers_len: usize,
            body: Text0,
            body_len: usize,
            route: Text0,
            route_len: usize,
            deadline_ms: u32,
            max_body: u64,
        ) callconv(.c) *const WireLoadDecision {
            const request: Request = .{
                .method = .{ .ptr = method, .len = method_len },
                .scheme = .{ .ptr = scheme, .len = scheme_len },
                .host = .{ .ptr = host, .len = host_len },
                .path_and_query = .{ .ptr = path, .len = path_len },
                .headers = .{ .ptr = headers, .len = headers_len },
                .body = .{ .ptr = body, .len = body_len },
            };
            const context: Context = .{
                .route = (Text{ .ptr = route, .len = route_len }).slice(),
                .deadline_ms = deadline_ms,
                .max_body = max_body,
            };
            decision = switch (Plugin.load(request, context)) {
                .response => |response| .{ .tag = .response, .value = .{ .response = response } },
                .pass => |passed| .{ .tag = .pass, .value = .{ .pass = passed } },
                .absent => .{ .tag = .absent, .value = .{ .why = .{} } },
                .stale => |why| .{ .tag = .stale, .value = .{ .why = Text.of(why) } },
                .failed => |why| .{ .tag = .failed, .value = .{ .why = Text.of(why) } },
            };
            return &decision;
        }

        fn done(_: *const WireLoadDecision) callconv(.c) void {
            used = kept;
        }
    };
    shared(Plugin);
    @export(&exports.load, .{ .name = "lamina:plugin/load@1.0.0#load" });
    @export(&exports.done, .{ .name = "cabi_post_lamina:plugin/load@1.0.0#load" });
}

/// Exports the functions of a key plugin as the contract names them.
pub fn plugin(comptime Plugin: type) void {
    const exports = struct {
        var decision: WireDecision = undefined;

        fn derive(
            has_method: i32,
            method: Text0,
            method_len: usize,
            has_host: i32,
            host: Text0,
            host_len: usize,
            has_path: i32,
            path: Text0,
            path_len: usize,
            has_query: i32,
            query: Text0,
            query_len: usize,
            headers: ?[*]const Field,
            headers_len: usize,
            cookies: ?[*]const Field,
            cookies_len: usize,
        ) callconv(.c) *const WireDecision {
            decision = switch (Plugin.derive(KeyInputs{
                .method = optional(has_method, method, method_len),
                .host = optional(has_host, host, host_len),
                .path = optional(has_path, path, path_len),
                .query = optional(has_query, query, query_len),
                .headers = (Fields{ .ptr = headers, .len = headers_len }).slice(),
                .cookies = (Fields{ .ptr = cookies, .len = cookies_len }).slice(),
            })) {
                .default => .{ .tag = .default, .value = .{ .refuse = 0 } },
                .key => |key| .{ .tag = .key, .value = .{ .key = key } },
                .bypass => |why| .{ .tag = .bypass, .value = .{ .bypass = Text.of(why) } },
                .refuse => |status| .{ .tag = .refuse, .value = .{ .refuse = status } },
            };
            return &decision;
        }

        fn done(_: *const WireDecision) callconv(.c) void {
            used = kept;
        }
    };
    shared(Plugin);
    @export(&exports.derive, .{ .name = "lamina:plugin/key@1.0.0#derive" });
    @export(&exports.done, .{ .name = "cabi_post_lamina:plugin/key@1.0.0#derive" });
}

/// What every plugin exports.
fn shared(comptime Plugin: type) void {
    const exports = struct {
        var description: WireDescription = undefined;

        fn realloc(old: [*]const u8, old_size: usize, _: usize, size: usize) callconv(.c) [*]u8 {
            const fresh = take(size); // every piece is aligned for anything
            const both = @min(old_size, size);
            @memcpy(fresh[0..both], old[0..both]);
            return fresh;
        }

        fn describe(config: ?[*]const u8, length: usize) callconv(.c) *const WireDescription {
            const text: Text = .{ .ptr = config, .len = length };
            description = switch (Plugin.describe(text.slice())) {
                .manifest => |manifest| .{ .is_error = false, .value = .{ .manifest = manifest } },
                .wrong => |wrong| .{ .is_error = true, .value = .{ .wrong = Text.of(wrong) } },
            };
            kept = used;
            return &description;
        }
    };
    @export(&exports.realloc, .{ .name = "cabi_realloc" });
    @export(&exports.describe, .{ .name = "lamina:plugin/manifest@1.0.0#describe" });
}

const Text0 = ?[*]const u8;

fn optional(is_some: i32, ptr: Text0, len: usize) ?[]const u8 {
    return if (is_some != 0) (Text{ .ptr = ptr, .len = len }).slice() else null;
}
