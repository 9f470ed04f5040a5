//! A query as a list of parameters, in the spelling of the request.

/// The parameters of a query; nothing is decoded, so that what is written again is
/// what the client sent.
///
/// ```
/// use lamina_plugin::Query;
///
/// let mut query = Query::parse("b=2&utm_source=mail&a=1&a=0");
/// query.retain(|name, _| !name.starts_with("utm_"));
/// query.sort();
/// assert_eq!(query.to_string(), "a=1&a=0&b=2");
/// assert_eq!(query.get("b"), Some("2"));
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query<'a> {
    /// Each parameter whole, and the length of its name.
    parameters: Vec<(&'a str, usize)>,
}

impl<'a> Query<'a> {
    /// Reads a query without its `?`. Empty parameters (`a&&b`) are left out.
    pub fn parse(query: &'a str) -> Self {
        let whole = query.split('&').filter(|p| !p.is_empty());
        Self {
            parameters: whole.map(|p| (p, p.find('=').unwrap_or(p.len()))).collect(),
        }
    }

    /// The value of the first parameter of this name; empty when it has no `=`.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.parameters
            .iter()
            .map(|&(whole, end)| split(whole, end))
    }

    /// Keeps the parameters for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.parameters.retain(|&(whole, end)| {
            let (name, value) = split(whole, end);
            keep(name, value)
        });
    }

    /// Sorts by name; parameters of one name keep their order, for it may mean
    /// something to the origin.
    pub fn sort(&mut self) {
        self.parameters.sort_by(|a, b| a.0[..a.1].cmp(&b.0[..b.1]));
    }
}

fn split(whole: &str, end: usize) -> (&str, &str) {
    (&whole[..end], whole.get(end + 1..).unwrap_or(""))
}

impl std::fmt::Display for Query<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (whole, _)) in self.parameters.iter().enumerate() {
            if i > 0 {
                f.write_str("&")?;
            }
            f.write_str(whole)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_may_lack_a_value_or_hold_an_equals_sign() {
        let query = Query::parse("flag&x=1=2&&e=");
        assert_eq!(
            query.iter().collect::<Vec<_>>(),
            [("flag", ""), ("x", "1=2"), ("e", "")]
        );
        assert_eq!(query.to_string(), "flag&x=1=2&e=");
    }

    #[test]
    fn sorting_keeps_the_order_of_one_name() {
        let mut query = Query::parse("b=1&a=2&b=0&a");
        query.sort();
        assert_eq!(query.to_string(), "a=2&a&b=1&b=0");
    }
}
