//! A key plugin: one cache entry a path and currency, whatever the query says.

const lamina = @import("lamina");

/// At the top: a list made inside a function is gone when it returns.
const cookies = [_]lamina.Text{.of("currency")};

/// `config` of the YAML, as JSON text. To refuse it: `.{ .wrong = "what is wrong" }`. What
/// `derive` depends on is named here: exactly this is passed to it.
pub fn describe(config: []const u8) lamina.Description {
    _ = config;
    return .{ .manifest = .{
        .name = .of("{{name}}"),
        .version = .of("0.1.0"),
        .inputs = .{ .host = true, .path = true, .cookies = .of(&cookies) },
    } };
}

/// Must be pure: equal inputs are answered from memory, without a call.
pub fn derive(inputs: lamina.KeyInputs) lamina.Decision {
    const url = lamina.join(&.{ inputs.host orelse "", inputs.path orelse "" });
    const parts = lamina.alloc(lamina.Text, 1);
    parts[0] = .of(lamina.valueOf(inputs.cookies, "currency") orelse "EUR");
    return .{ .key = .{ .text = .of(url), .parts = .of(parts) } };
}

comptime {
    lamina.plugin(@This());
}
