// Has NAME asked at ADDRESS:PORT, by RESOLVE=NAME=ADDRESS:PORT in the environment. It stands for a line of
// /etc/hosts, for programs that have the address of an API built in.
const tls = require("node:tls");

const [name, target] = process.env.RESOLVE.split("=");
const [host, port] = target.split(":");
const connect = tls.connect;
tls.connect = (options, ...others) => {
  const here = options.host === name || options.servername === name || options.hostname === name;
  return connect(here ? { ...options, host, port: Number(port), servername: name } : options, ...others);
};
