"""Speed and memory, measured beside their peers: `ip2p-fast bench`. The tables are drawn from the results files."""
