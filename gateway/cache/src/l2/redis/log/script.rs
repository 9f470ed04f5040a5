//! The script that handles the purge log, and its answer.
//!
//! Lua's numbers are floats, so the script only reads numbers that are far below 2⁵³; it recognizes
//! others by their texts.

use crate::l2::store::LogNumber;
use std::sync::LazyLock;

use bytes::Bytes;
use lamina_base::redis::driver::Value;

use crate::l2::redis::script::InvalidationScript;
use crate::l2::store::{LogFault, LoggedPurge, nothing};

/// Keys: stream, head. Arguments: generation that was read last, number known of it, generation for
/// a new log, its seal or nothing, generation to be replaced, number from which on none is trusted,
/// largest number of purges to return, largest size of a selector in octets, generation before
/// which none is trusted, the newest number that was read of the generation that was read last, the
/// token of its entry or nothing. For an append also: length to keep, selector, soft (0 or 1), the
/// number before those for which it is sealed, seals of the generation that was read last or
/// nothing; for a purge that may stand for those before it, the first number that it would stand
/// for and its seal; a token.
pub(super) static LOG: LazyLock<InvalidationScript> = LazyLock::new(|| {
    InvalidationScript::from_lua(
        "local stream, head, told, most = KEYS[1], KEYS[2], ARGV[1], tonumber(ARGV[6])
local length, selector, soft, before, seals, spans_from, spanning, token = unpack(ARGV, 12)
local function text(n) return string.format('%.0f', n) end
local function number(digits)
  if not digits or #digits > 12 or not string.match(digits, '^%d+$') then return nil end
  local n = tonumber(digits)
  return n < most and n or nil
end
local function of(id) return number(string.match(id, '^(%d+)%-0$')) end
local function told_by(entry)
  if not entry then return {} end
  local told, fields = {}, entry[2]
  if #fields > 10 then return {entry[1]} end
  for i = 1, #fields, 2 do told[fields[i]] = fields[i + 1] end
  local seal, since, token = told.seal or '', told.since or '', told.token or ''
  local ours = told.selector and #told.selector <= tonumber(ARGV[8]) and told.soft and #told.soft == 1
    and #since <= 12 and #seal <= 16 and #token <= 16
  return ours and {entry[1], told.selector, told.soft, since, seal, token} or {entry[1]}
end
local function is_earlier(one, other)
  return #one < #other or #one == #other and one < other
end
local function holds(n, token)
  local entry = told_by(redis.call('XRANGE', stream, text(n) .. '-0', '+', 'COUNT', 1)[1])
  local since = number(entry[4]) or of(entry[1] or '')
  return since and since <= n and entry[6] == token
end
local function newest()
  return told_by(redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1])
end
local known, read = number(ARGV[2]) or 0, number(ARGV[10]) or 0
local streams, heads = redis.call('TYPE', stream).ok, redis.call('TYPE', head).ok
local why, generation, seal, counter, floor, last, top = nil, nil, '', nil, nil, '', ''
if streams == 'stream' then
  local about = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then last = about[i + 1] end
    if about[i] == 'last-entry' and about[i + 1] then top = about[i + 1][1] end
  end
end
if (streams ~= 'none' and streams ~= 'stream') or (heads ~= 'none' and heads ~= 'hash') then
  why = 'foreign'
elseif heads == 'none' then
  why = streams == 'none' and 'new' or 'lost'
else
  local was = redis.call('HMGET', head, 'generation', 'counter', 'floor', 'seal')
  generation, counter, floor, seal = was[1], number(was[2]), number(was[3]), was[4] or ''
  local ends = text(counter or 0) .. '-0'
  if not generation then why = 'lost'
  elseif #generation > 19 or not string.match(generation, '^[1-9]%d*$') then why = 'numbers'
  elseif not counter or not floor or floor > counter then why = 'numbers'
  elseif generation == ARGV[5] then why = 'replayed'
  elseif is_earlier(generation, ARGV[9]) then why = 'rolled-back'
  elseif generation == told and math.max(known, read) > counter then why = 'rolled-back'
  elseif streams == 'none' and counter > floor then why = 'lost'
  elseif streams == 'stream' and (last ~= ends or top ~= ends) then
    why = of(last) and 'lost' or 'numbers'
  elseif generation == told and read > floor and ARGV[11] ~= '' and not holds(read, ARGV[11]) then
    why = 'rolled-back'
  elseif length and counter + 1 >= most then why = 'numbers' end
end
if why then
  counter = math.max(counter or 0, known, read, of(top) or 0)
  if counter + 1 >= most then counter = 0 end
  floor, generation, seal = counter, ARGV[3], ARGV[4]
  if heads ~= 'hash' then redis.call('DEL', head) end
  redis.call('HSET', head, 'generation', generation, 'seal', seal, 'counter', text(counter), 'floor', text(floor))
  redis.call('UNLINK', stream)
end
local appended = 0
if length then
  local fields = {'selector', selector, 'soft', soft}
  local last, replaced, since, bears = newest(), nil, nil, ''
  if selector == 'route:' and last[2] == 'route:' then
    replaced, since = last[1], last[4] ~= '' and last[4] or string.match(last[1], '^%d+')
  end
  local sealed = seals == ''
  if not sealed then
    local at = counter - tonumber(before)
    if replaced and at == 0 and generation == told and spans_from == since then
      bears = spanning
    else
      replaced = nil
      bears = at >= 0 and string.sub(seals, at * 16 + 1, at * 16 + 16) or ''
    end
    sealed = generation == told and #bears == 16
  end
  local function add(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if replaced then add('since', since) end
  if bears ~= '' then add('seal', bears) end
  add('token', replaced and last[6] or token)
  if sealed then
    appended, counter = 1, counter + 1
    if replaced then redis.call('XDEL', stream, replaced) end
    local entries = redis.call('XLEN', stream)
    redis.call('XADD', stream, 'MAXLEN', '~', length, text(counter) .. '-0', unpack(fields))
    if redis.call('XLEN', stream) ~= entries + 1 then
      floor = tonumber(string.match(redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1], '^%d+')) - 1
    end
    redis.call('HSET', head, 'counter', text(counter), 'floor', text(floor))
  end
end
local stretch, from = tonumber(ARGV[7]), generation == told and known or 0
local whole = from >= floor and 1 or 0
local found = redis.call('XRANGE', stream, text(from) .. '-1', '+', 'COUNT', stretch + 1)
if #found > stretch then
  whole, found = 0, redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)
end
local purges = {}
for i, entry in ipairs(found) do purges[i] = told_by(entry) end
if #seal > 16 then seal = '' end
return {generation, seal, text(counter), whole, why or '', appended, purges, newest()}",
    )
});

/// The script's answer.
pub(super) struct LogScriptAnswer {
    pub(super) generation: u64,
    pub(super) seal: Bytes,
    pub(super) newest: LogNumber,
    /// See [`PurgeLogRange::whole`](crate::l2::store::PurgeLogRange::whole).
    pub(super) whole: bool,
    /// Why this call began a new generation.
    pub(super) fault: Option<LogFault>,
    pub(super) appended: bool,
    pub(super) entries: Vec<LogStreamEntry>,
    /// The last entry of the stream.
    pub(super) last: Option<LogStreamEntry>,
}

/// A purge as it is stored in the stream.
pub(super) struct LogStreamEntry {
    /// The first number that it stands for.
    pub(super) since: LogNumber,
    pub(super) number: LogNumber,
    /// None: it does not have the right form.
    pub(super) purge: Option<LoggedPurge>,
    pub(super) seal: Bytes,
    /// Distinguishes it from every other purge that ever had its number; empty if nothing does.
    pub(super) token: Bytes,
}

impl LogScriptAnswer {
    pub(super) fn read(answer: Value) -> Option<Self> {
        let [
            generation,
            seal,
            newest,
            whole,
            why,
            appended,
            entries,
            last,
        ] = parts(answer)?;
        let entries = match entries {
            Value::Array(entries) => entries,
            Value::Null => Vec::new(),
            _ => return None,
        };
        Some(Self {
            generation: number(&generation)?,
            seal: seal.into_bytes()?,
            newest: LogNumber::new(number(&newest)?),
            whole: whole.as_i64()? == 1,
            fault: fault(&text(&why)?),
            appended: appended.as_i64()? == 1,
            entries: entries
                .into_iter()
                .map(LogStreamEntry::read)
                .collect::<Option<_>>()?,
            last: LogStreamEntry::read(last),
        })
    }
}

impl LogStreamEntry {
    /// Reads `[id]` or `[id, selector, soft, since, seal, token]`.
    fn read(entry: Value) -> Option<Self> {
        let Value::Array(parts) = entry else {
            return None;
        };
        let mut parts = parts.into_iter();
        let id = text(&parts.next()?)?;
        // An id that is not ours is no number of the log and counts as 0.
        let number = id.strip_suffix("-0").and_then(|n| n.parse().ok());
        let number = LogNumber::new(number.unwrap_or(0));
        let told = purge(parts);
        Some(match told {
            Some((purge, since, seal, token)) => Self {
                // Only a purge that reaches nothing may stand for several numbers.
                since: since
                    .filter(|since| *since <= number && purge == nothing())
                    .unwrap_or(number),
                number,
                purge: Some(purge),
                seal,
                token,
            },
            None => Self {
                since: number,
                number,
                purge: None,
                seal: Bytes::new(),
                token: Bytes::new(),
            },
        })
    }
}

/// Reads selector, soft, since, seal and token.
fn purge(
    mut parts: impl Iterator<Item = Value>,
) -> Option<(LoggedPurge, Option<LogNumber>, Bytes, Bytes)> {
    let (selector, soft) = (text(&parts.next()?)?, text(&parts.next()?)?);
    let purge = LoggedPurge {
        selector,
        soft: soft == "1",
    };
    let since = text(&parts.next()?)?.parse().ok().map(LogNumber::new);
    let (seal, token) = (parts.next()?.into_bytes()?, parts.next()?.into_bytes()?);
    Some((purge, since, seal, token))
}

fn fault(why: &str) -> Option<LogFault> {
    LogFault::ALL
        .into_iter()
        .find(|fault| fault.as_str() == why)
}

fn parts<const N: usize>(value: Value) -> Option<[Value; N]> {
    match value {
        Value::Array(values) => values.try_into().ok(),
        _ => None,
    }
}

fn number(value: &Value) -> Option<u64> {
    text(value)?.parse().ok()
}

fn text(value: &Value) -> Option<String> {
    let bytes = value.as_bytes()?;
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}
