// What the model may know of the user and of the page, with each message. The chat server treats it as the user's own words.

const MESSAGES = /^threads\.(create|add_user_message)$/;

/** Nothing that changes while a request is repeated: the same request has the same bytes. */
export function withMetadata(inner: typeof fetch, userInfo: Record<string, string>): typeof fetch {
  return (input, init) => {
    const request = typeof init?.body === "string" ? JSON.parse(init.body) : null;
    if (!MESSAGES.test(request?.type)) return inner(input, init);
    const pageContext = { path: location.pathname, title: document.title };
    return inner(input, { ...init, body: JSON.stringify({ ...request, metadata: { ...request.metadata, userInfo, pageContext } }) });
  };
}
