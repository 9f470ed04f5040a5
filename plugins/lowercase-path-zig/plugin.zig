//! One cache entry for /Shop and /shop. See README.md.

const lamina = @import("lamina");
const lower = @import("lower.zig").lower;

pub fn describe(_: []const u8) lamina.Description {
    return .{ .manifest = .{
        .name = .of("lowercase-path-zig"),
        .version = .of("1.0.0"),
        .inputs = .{ .host = true, .path = true, .query = .{ .tag = .whole } },
    } };
}

pub fn derive(inputs: lamina.KeyInputs) lamina.Decision {
    const path = inputs.path orelse return .default;
    const lowered = lamina.alloc(u8, path.len);
    lower(lowered, path);
    const query = inputs.query orelse "";
    const mark = if (query.len > 0) "?" else "";
    const url = lamina.join(&.{ inputs.host orelse "", lowered, mark, query });
    return .{ .key = .{ .text = .of(url) } };
}

comptime {
    lamina.plugin(@This());
}
