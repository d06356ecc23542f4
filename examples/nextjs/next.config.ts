import type { NextConfig } from "next";

const config: NextConfig = {
  // A server with only the files it needs: .next/standalone/server.js.
  output: "standalone",
  outputFileTracingRoot: import.meta.dirname,
  poweredByHeader: false,
};

export default config;
