import type { NextConfig } from "next";

const config: NextConfig = {
  // A server with what it needs and nothing else: .next/standalone/server.js.
  output: "standalone",
  outputFileTracingRoot: import.meta.dirname,
  poweredByHeader: false,
};

export default config;
