// The two ceremonies of passkeys, from the server's JSON to the browser and back.

import { fromBuffer, toBuffer } from "./base64url.js";

export function isSupported() {
  return Boolean(window.PublicKeyCredential && navigator.credentials);
}

function descriptors(listed) {
  return (listed || []).map((one) => ({ ...one, id: toBuffer(one.id) }));
}

// `passwordless`: the key must know the person by itself and check a PIN or a finger.
export async function createPasskey({ publicKey }, passwordless) {
  const selection = { ...publicKey.authenticatorSelection };
  selection.residentKey = passwordless ? "required" : "discouraged";
  selection.requireResidentKey = passwordless;
  if (passwordless) selection.userVerification = "required";
  const credential = await navigator.credentials.create({
    publicKey: {
      ...publicKey,
      authenticatorSelection: selection,
      challenge: toBuffer(publicKey.challenge),
      user: { ...publicKey.user, id: toBuffer(publicKey.user.id) },
      excludeCredentials: descriptors(publicKey.excludeCredentials),
    },
  });
  const { response } = credential;
  return {
    ...envelope(credential),
    response: {
      clientDataJSON: fromBuffer(response.clientDataJSON),
      attestationObject: fromBuffer(response.attestationObject),
      transports: response.getTransports ? response.getTransports() : [],
    },
  };
}

export async function usePasskey({ publicKey }) {
  const credential = await navigator.credentials.get({
    publicKey: {
      ...publicKey,
      challenge: toBuffer(publicKey.challenge),
      allowCredentials: descriptors(publicKey.allowCredentials),
    },
  });
  const { response } = credential;
  return {
    ...envelope(credential),
    response: {
      clientDataJSON: fromBuffer(response.clientDataJSON),
      authenticatorData: fromBuffer(response.authenticatorData),
      signature: fromBuffer(response.signature),
      userHandle: response.userHandle ? fromBuffer(response.userHandle) : null,
    },
  };
}

function envelope(credential) {
  return {
    type: credential.type,
    id: credential.id,
    rawId: fromBuffer(credential.rawId),
    authenticatorAttachment: credential.authenticatorAttachment,
    clientExtensionResults: credential.getClientExtensionResults(),
  };
}
