import type { NextConfig } from "next";

const config: NextConfig = {
  // A server with only the files it needs: .next/standalone/server.js.
  output: "standalone",
  // Shared with other front ends, as TypeScript.
  transpilePackages: ["chatkit-postgres-front-end"],
  outputFileTracingRoot: import.meta.dirname,
  poweredByHeader: false,
};

export default config;
